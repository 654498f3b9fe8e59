"""The native transport's session of ONNX Runtime computes the bits of Python's, or is not used."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import Bundle
from export.bundle.manifest import ONNX_FILE
from export.runtimes import open_runner
from server.engine.model import ServedModel, load_verified
from server.transport.native import session as native_session
from server.transport.native.session import give_onnxruntime, open_lane_session
from tests.support.bundles import publish_random_bundle, random_images

if TYPE_CHECKING:
    from export.runtimes import Runner

MOST = 1024
MIB = 1 << 20
# Run alone: what else a process loads hides what the session takes.
MEMORY = """
import sys
import numpy as np, forward_native
from server.transport.native.session import give_onnxruntime

def kib(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

give_onnxruntime(forward_native)
model, pixels = open(sys.argv[1], "rb").read(), bytes(64 * 784 * 4)

def cycle():
    session = forward_native.OnnxSession(model, 1, "images", "logits")
    session.run(pixels, 64)
    return session

before = kib("VmRSS:")
kept = cycle()
print(kib("VmRSS:") - before)
for _ in range(20):
    cycle()
before = kib("RssAnon:")
for _ in range(100):
    cycle()
print(kib("RssAnon:") - before)
"""


@pytest.fixture(scope="module")
def extension() -> Any:  # noqa: ANN401 (a module without types)
    """The extension's module."""
    module = pytest.importorskip("forward_native", reason="needs the native transport: make native")
    give_onnxruntime(module)
    return module


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> ServedModel:
    """The bundled model as a server loads it."""
    return load_verified(bundle, "onnx", "cpu", 1)


@pytest.fixture(scope="module", params=[1, 2], ids="threads-{}".format)
def sessions(
    request: pytest.FixtureRequest,
    extension: Any,  # noqa: ANN401 (a module without types)
    bundle: Bundle,
) -> tuple[Any, "Runner"]:
    """The extension's session, and Python's of the same number of threads."""
    data = bundle.read(ONNX_FILE)
    native = extension.OnnxSession(data, request.param, "images", "logits")
    return native, open_runner(bundle, "onnx", "cpu", threads=request.param)


@given(count=st.integers(1, MOST), seed=st.integers(0, 2**32 - 1), of_bytes=st.booleans())
def test_logits_have_the_bits_of_pythons(
    sessions: tuple[Any, "Runner"],
    count: int,
    seed: int,
    of_bytes: bool,
) -> None:
    native, runner = sessions
    random = np.random.default_rng(seed)
    images: np.ndarray = random.random((count, 28, 28), np.float32)
    if of_bytes:
        images = random.integers(0, 256, images.shape, np.uint8) / np.float32(255)
    assert native.run(images.tobytes(), count) == runner.predict(images).tobytes()


@pytest.mark.parametrize(
    ("shape", "hidden"), [((3, 5), (4,)), ((1, 1), ()), ((7, 2), (33, 17))], ids=str
)
def test_networks_of_every_shape_are_served(
    extension: Any,  # noqa: ANN401 (a module without types)
    tmp_path: Path,
    shape: tuple[int, int],
    hidden: tuple[int, ...],
) -> None:
    bundle = publish_random_bundle(tmp_path, "other", shape, ("cat", "dog", "cow"), hidden)
    runner = open_runner(bundle, "onnx", "cpu", threads=1)
    stages = bundle.manifest.stages
    names = stages[0].values["onnx"], stages[-1].values["onnx"]
    native = extension.OnnxSession(bundle.read(ONNX_FILE), 1, *names)
    for count in (1, 2, 65):
        images = random_images(count, shape)
        assert native.run(images.tobytes(), count) == runner.predict(images).tobytes()


@pytest.mark.usefixtures("extension")
def test_the_session_that_passes_is_returned(model: ServedModel) -> None:
    session, reason = open_lane_session(model, 1, MOST)
    assert reason == ""
    assert session is not None
    images = random_images(3, (28, 28))
    assert session.run(images.tobytes(), 3) == model.runner.predict(images).tobytes()


@pytest.mark.usefixtures("extension")
def test_one_bit_of_difference_is_a_reason(model: ServedModel) -> None:
    class Other:
        """Python's session, one bit of one logit of a large batch changed."""

        runtime, device = "onnx", "cpu"

        def predict(self, images: np.ndarray) -> np.ndarray:
            logits = model.runner.predict(images)
            if len(images) == MOST:
                logits[-1, -1] = np.nextafter(logits[-1, -1], np.float32(np.inf))
            return logits

    changed: Any = Other()
    session, reason = open_lane_session(replace(model, runner=changed), 1, MOST)
    assert session is None
    assert reason == "its logits of the largest batch are not those of Python's session, bit by bit"


@pytest.mark.usefixtures("extension")
def test_another_runtime_is_a_reason(bundle: Bundle, model: ServedModel) -> None:
    runner = open_runner(bundle, "torchscript", "cpu")
    session, reason = open_lane_session(replace(model, runner=runner), 1, MOST)
    assert session is None
    assert reason == "it runs onnx on the cpu, and this is torchscript on cpu"


@pytest.mark.usefixtures("extension")
def test_an_onnxruntime_that_refuses_is_a_reason(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = SimpleNamespace(__file__=str(tmp_path / "none.so"))
    monkeypatch.setattr(native_session, "load_extension", lambda: other)
    session, reason = open_lane_session(model, 1, MOST)
    assert session is None
    assert "none.so" in reason


def test_one_copy_of_onnxruntime_is_in_the_process(extension: Any) -> None:  # noqa: ANN401, ARG001
    """The package has two: Python's module, and libonnxruntime.so, which the image leaves out."""
    assert "libonnxruntime.so" not in Path("/proc/self/maps").read_text()


def test_a_broken_model_has_the_librarys_error(
    extension: Any,  # noqa: ANN401 (a module without types)
    bundle: Bundle,
) -> None:
    whole = bundle.read(ONNX_FILE)
    for broken in (b"", b"no model", whole[: len(whole) // 2]):
        with pytest.raises(RuntimeError, match=r"(?i)protobuf|no graph"):
            extension.OnnxSession(broken, 1, "images", "logits")


def test_data_outside_the_model_are_refused(
    extension: Any,  # noqa: ANN401 (a module without types)
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in the working directory, from which a model in memory would take them."""
    monkeypatch.chdir(tmp_path)
    outside = onnx.load_from_string(bundle.read(ONNX_FILE))
    onnx.save_model(
        outside, "model.onnx", save_as_external_data=True, location="near.bin", size_threshold=0
    )
    assert Path("near.bin").stat().st_size > 0
    data = Path("model.onnx").read_bytes()
    with pytest.raises(RuntimeError, match=r"near\.bin"):
        extension.OnnxSession(data, 1, "images", "logits")


@pytest.mark.parametrize(("count", "images"), [(1, 2), (2, 1), (0, 0), (1, 0), (1, sys.maxsize)])
def test_pixels_that_are_not_so_many_images_are_refused(
    sessions: tuple[Any, "Runner"], count: int, images: int
) -> None:
    with pytest.raises(RuntimeError, match="numbers for"):
        sessions[0].run(bytes(count * 784 * 4), images)


def test_a_part_of_a_number_is_refused(sessions: tuple[Any, "Runner"]) -> None:
    with pytest.raises(ValueError, match="3135 bytes of pixels are no float32"):
        sessions[0].run(bytes(784 * 4 - 1), 1)


@pytest.mark.usefixtures("extension")
def test_memory_is_bounded_and_given_back(bundle: Bundle) -> None:
    arguments = [MEMORY, str(bundle.path / ONNX_FILE)]
    done = subprocess.run(
        [sys.executable, "-c", *arguments], check=True, capture_output=True, text=True
    )
    first, hundred = (int(line) * 1024 for line in done.stdout.split())
    assert first < 24 * MIB  # 16 MiB; without its pages given back, 31 MiB
    assert hundred < 4 * MIB  # within 2 MiB from one to the next, either way; a session has 2 MiB
