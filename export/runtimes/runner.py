"""The interface of every runtime that can run a bundle, and how one is opened."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from export.architecture import Device, Precision, Runtime
from export.bundle.reading import Bundle
from export.errors import BundleError, ExportError, RuntimeUnavailableError, how_to_get
from export.runtimes.changes import Changes


class Runner(Protocol):
    """A loaded model.

    Images are FLOAT32 of shape [N, H, W], N at least 1, already validated.
    `predict` and `trace` may be called from any thread.
    """

    device: Device
    provider: str  # what the runtime itself calls its backend
    precision: Precision
    batch_invariant: bool  # an image's outputs are the same bits in a batch of any size

    @property
    def runtime(self) -> Runtime:
        """The runtime that this is."""
        ...

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the logits, [N, classes]."""
        ...

    def trace(self, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the named stages' outputs, each [N, …], by stage name."""
        ...


class InterveningRunner(Runner, Protocol):
    """A runner that can change the stages' outputs of a run."""

    @property
    def can_intervene(self) -> bool:
        """Whether the bundle has what this needs: those exported before it have not."""
        ...

    def intervene(
        self, images: np.ndarray, stages: Sequence[str], changes: Changes
    ) -> dict[str, np.ndarray]:
        """Return the named stages' outputs with changes, everything after them included.

        Raises:
            InterventionsUnavailableError: the bundle was exported without them.
        """
        ...


def open_runner(
    bundle: Bundle,
    runtime: Runtime,
    device: Device,
    precision: Precision = "float32",
    threads: int | None = None,
) -> InterveningRunner:
    """Load a bundle into a runtime on a device.

    `threads` compute a run; None leaves the number to the runtime, one for ONNX Runtime.

    Raises:
        RuntimeUnavailableError: the runtime is not installed, or lacks the device or the
            precision.
        BundleError: the model's file is damaged.
    """
    runner = _import_runner(runtime)
    try:
        return runner(bundle, device, precision, threads)
    except ExportError:
        raise
    except Exception as error:  # a runtime raises many types for a file that it can't read
        raise BundleError(f"{bundle.path}: {runtime} can't load the model: {error}") from error


def _import_runner(
    runtime: Runtime,
) -> Callable[[Bundle, Device, Precision, int | None], InterveningRunner]:
    """Import only the chosen runtime."""
    try:
        if runtime == "onnx":
            from export.runtimes.onnx import OnnxRunner  # noqa: PLC0415 (a runtime loads when asked)

            return OnnxRunner
        if runtime == "onnx-reference":
            from export.runtimes.reference import OnnxReferenceRunner  # noqa: PLC0415 (as above)

            return OnnxReferenceRunner
        from export.runtimes.torch import TORCH_RUNNERS  # noqa: PLC0415 (as above)

        return TORCH_RUNNERS[runtime]
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"runtime {runtime!r} needs {error.name!r}; {how_to_get(error.name or '')}"
        ) from error
    except (ImportError, OSError) as error:  # a library that it needs is missing or broken
        raise RuntimeUnavailableError(f"runtime {runtime!r} can't be imported: {error}") from error
