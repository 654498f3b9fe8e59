"""ONNX Runtime."""

import functools
import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any, TypeAlias

import numpy as np
import onnxruntime

from export.architecture import Device, Precision, Runtime
from export.bundle.manifest import ONNX_FILE, ONNX_INTERVENTIONS_FILE, ONNX_TRACE_FILE
from export.bundle.reading import Bundle
from export.errors import (
    BundleError,
    ExportError,
    InterventionsUnavailableError,
    RuntimeUnavailableError,
)
from export.runtimes.changes import NONE, Changes, change_input, changed_value

Session: TypeAlias = Any  # onnxruntime has no types

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
# The precisions of factors that each device offers, with the options of the provider.
PROVIDER_OPTIONS: dict[tuple[Device, Precision], dict[str, str]] = {
    ("cpu", "float32"): {},
    ("cuda", "float32"): {"use_tf32": "0"},
    ("cuda", "tf32"): {"use_tf32": "1"},
}
# A model from bytes may name files with its tensors, which ONNX Runtime would read from the
# working directory. No file can exist below this path.
NO_FOLDER = "/dev/null"


class OnnxRunner:
    """Runs `model.onnx`, and for traces `trace.onnx` in a session of its own."""

    runtime: Runtime = "onnx"

    def __init__(
        self, bundle: Bundle, device: Device, precision: Precision, threads: int | None = None
    ) -> None:
        self.device = device
        # One thread: a forward of this size costs less than waking a second one.
        self._threads = threads or 1
        self.precision = precision
        self.provider = self._choose_provider()
        self.batch_invariant = self.provider == CPU_PROVIDER  # others choose kernels by the batch
        stages = bundle.manifest.stages
        self._input = stages[0].values["onnx"]
        self._logits = stages[-1].values["onnx"]
        self._values = {stage.name: stage.values["onnx"] for stage in stages}
        self._session = self._open(bundle, ONNX_FILE)
        self._trace_session = self._open(bundle, ONNX_TRACE_FILE)
        self._changeable = [stage.name for stage in stages if stage.operation != "Output"]
        self._interventions_session = (
            self._open(bundle, ONNX_INTERVENTIONS_FILE)
            if ONNX_INTERVENTIONS_FILE in bundle.names
            else None
        )

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the logits, [N, classes]."""
        logits: np.ndarray = self._session.run([self._logits], {self._input: images})[0]
        return logits

    def trace(self, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the named stages' outputs, each [N, …], by stage name."""
        values = {self._values[name] for name in stages}
        outputs = sorted(values - {self._input})
        computed = {self._input: images}
        if outputs:  # ONNX Runtime reads an empty list as "all"
            arrays = self._trace_session.run(outputs, {self._input: images})
            computed |= dict(zip(outputs, arrays, strict=True))
        return {name: computed[self._values[name]] for name in stages}

    @property
    def can_intervene(self) -> bool:
        """Whether the bundle has a graph for it."""
        return self._interventions_session is not None

    def intervene(
        self, images: np.ndarray, stages: Sequence[str], changes: Changes
    ) -> dict[str, np.ndarray]:
        """Return the named stages' outputs, each [N, …], with changes, by stage name.

        Raises:
            InterventionsUnavailableError: the bundle was exported without them.
        """
        if self._interventions_session is None:
            raise InterventionsUnavailableError(ONNX_INTERVENTIONS_FILE)
        feed = {self._input: images}
        for name in self._changeable:
            parts = changes.get(name, NONE)._asdict()
            feed |= {change_input(name, part): array for part, array in parts.items()}
        outputs = {name: changed_value(self._values[name]) for name in stages}
        wanted = sorted(set(outputs.values()))
        arrays = self._interventions_session.run(wanted, feed)
        computed = dict(zip(wanted, arrays, strict=True))
        return {name: computed[value] for name, value in outputs.items()}

    def _choose_provider(self) -> str:
        provider = CUDA_PROVIDER if self.device == "cuda" else CPU_PROVIDER
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise RuntimeUnavailableError(
                f"this onnxruntime {onnxruntime.__version__} has no {provider} "
                f"(it has {', '.join(available)}); install onnxruntime-gpu in its place"
            )
        if (self.device, self.precision) not in PROVIDER_OPTIONS:
            raise RuntimeUnavailableError(f"{provider} has no setting for {self.precision} factors")
        if provider == CUDA_PROVIDER:
            load_cuda_libraries()
        return provider

    def _open(self, bundle: Bundle, name: str) -> Session:
        try:
            return self._load(bundle.read(name))
        except ExportError:
            raise
        except Exception as error:  # a runtime raises many types for a graph that it refuses
            raise BundleError(
                f"{bundle.path / name}: {self.runtime} can't load it: {error}; expected a graph "
                "of ONNX's own operators that holds all its data itself and names no other file"
            ) from error

    def _load(self, model: bytes) -> Session:
        try:
            session = self._session_of(model, self.provider)
        except Exception as error:
            if self.provider == CPU_PROVIDER:
                raise
            self._session_of(model, CPU_PROVIDER)  # raises if it is the graph that is wrong
            raise RuntimeUnavailableError(
                f"{self.provider} can't be used: {_cuda_cause(error)}"
            ) from error
        granted = session.get_providers()
        if granted[:1] != [self.provider]:
            reason = load_cuda_libraries() or "onnxruntime's own message above says why"
            raise RuntimeUnavailableError(
                f"the session asked for {self.provider} and got {', '.join(granted)}: {reason}"
            )
        return session

    def _session_of(self, model: bytes, provider: str) -> Session:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", NO_FOLDER
        )
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; what matters is checked after
        settings = PROVIDER_OPTIONS[self.device, self.precision] if provider != CPU_PROVIDER else {}
        # Without its fallback, which prints to standard output and hides why it was needed.
        return onnxruntime.InferenceSession(
            model, options, providers=[(provider, settings)], enable_fallback=0
        )


@functools.cache
def load_cuda_libraries() -> str:
    """Load CUDA's libraries from their Python packages; return what could not be loaded.

    onnxruntime-gpu names its libraries, and the system's loader does not look into the packages
    of `pip install onnxruntime-gpu[cuda,cudnn]`.
    """
    said = io.StringIO()
    with redirect_stdout(said):  # it prints, and standard output may be for a report in JSON
        onnxruntime.preload_dlls()
    return " ".join(said.getvalue().split())


def _cuda_cause(error: Exception) -> str:
    """Return what CUDA says, out of a text with functions, files and the machine's name."""
    found = re.search(r"CUDA failure \d+: [^;]*[^; ]", str(error))
    return found[0] if found else str(error)
