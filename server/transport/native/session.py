"""The session of ONNX Runtime that the extension runs, proven equal to Python's at first."""

from typing import Any, Protocol, cast

import numpy as np
import onnxruntime

from export.bundle.manifest import ONNX_FILE
from export.errors import ExportError
from export.parity.vectors import recorded_images
from server.engine.model import ServedModel
from server.transport.native.extension import MODULE, load_extension

RANDOM_IMAGES = 100  # of the comparison's last batch


class OnnxSession(Protocol):
    """A session of the extension; native/src/onnx_python.rs."""

    def run(self, pixels: bytes, images: int) -> bytes:
        """Return the logits of images, float32 like their pixels; lets other threads run."""
        ...


def open_lane_session(
    model: ServedModel, threads: int, max_batch_images: int
) -> tuple[OnnxSession | None, str]:
    """Return a session that answers bit by bit like the model's runner, warmed up.

    Where there is none, return why: then all calls are answered through Python.
    """
    runner = model.runner
    if (runner.runtime, runner.device) != ("onnx", "cpu"):
        return None, f"it runs onnx on the cpu, and this is {runner.runtime} on {runner.device}"
    try:
        session = _open(model, threads)
        difference = _difference(session, model, max_batch_images)
    except (ExportError, OSError, RuntimeError) as error:
        return None, str(error)
    return (None, difference) if difference else (session, "")


def give_onnxruntime(extension: Any) -> None:  # noqa: ANN401 (a module without types)
    """Give the extension the functions of the ONNX Runtime that Python's own module has.

    It does so for libraries of custom operators; native/src/onnx/library.rs is one, without any.

    Raises:
        RuntimeError: ONNX Runtime can't register it.
    """
    module = getattr(extension, MODULE, extension)  # maturin puts it into a package of its name
    try:
        onnxruntime.SessionOptions().register_custom_ops_library(module.__file__)
    except Exception as error:  # its own classes have no other base
        raise RuntimeError(f"ONNX Runtime does not take the extension: {error}") from error


def _open(model: ServedModel, threads: int) -> OnnxSession:
    stages = model.manifest.stages
    data = model.bundle.read(ONNX_FILE)
    names = stages[0].values["onnx"], stages[-1].values["onnx"]
    extension = load_extension()
    give_onnxruntime(extension)
    return cast("OnnxSession", extension.OnnxSession(data, threads, *names))


def _difference(session: OnnxSession, model: ServedModel, max_batch_images: int) -> str:
    """Return where the session's logits differ from the runner's in any bit; empty: nowhere."""
    shape = model.manifest.input_shape
    vectors = recorded_images(model.bundle)
    random = np.random.default_rng(0)
    # Every third pixel is dark, as most of a picture are.
    pixels = random.integers(0, 256, (RANDOM_IMAGES, *shape)) * (random.random(shape) > 1 / 3)
    batches = {
        "the recorded vectors": vectors,
        "a recorded vector alone": vectors[-1:],
        "random images": (pixels / 255).astype(np.float32),
        "the largest batch": np.resize(vectors, (max_batch_images, *shape)),
        "one image": np.zeros((1, *shape), np.float32),
    }
    for what, images in batches.items():
        found = session.run(images.tobytes(), len(images))
        if found != np.ascontiguousarray(model.runner.predict(images)).tobytes():
            return f"its logits of {what} are not those of Python's session, bit by bit"
    return ""
