"""The torch runtimes: eager, from the weights alone, and TorchScript."""

import io
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch

from export.architecture import Runtime
from export.bundle import Bundle
from export.errors import RuntimeUnavailableError
from export.manifest import TORCHSCRIPT_FILE
from export.network import network_of
from export.torchscript_notice import torchscript_notice_filtered
from export.weights import read_weights


class _TorchRunner:
    """What the torch runtimes share: tensors in and out, without gradients."""

    # torch multiplies float32 as float32 unless TF32 is asked for.
    precision = "float32"
    runtime: Runtime

    def __init__(self, bundle: Bundle, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeUnavailableError(
                f"torch {torch.__version__} finds no CUDA device on this machine"
            )
        self.device = device
        self.provider = f"torch.{device}"
        self._values = {stage.name: stage.values[self.runtime] for stage in bundle.manifest.stages}
        self._module = self._load(bundle).to(device)
        trace = cast("Callable[[torch.Tensor], dict[str, torch.Tensor]]", self._module.trace)
        self._trace = trace

    def _load(self, bundle: Bundle) -> torch.nn.Module:
        raise NotImplementedError

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the logits, [N, classes]."""
        with torch.inference_mode():
            logits: np.ndarray = self._module(self._tensor(images)).cpu().numpy()
        return logits

    def trace(self, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the named stages' outputs, each [N, …], by stage name."""
        with torch.inference_mode():
            values = self._trace(self._tensor(images))
            return {name: values[self._values[name]].cpu().numpy() for name in stages}

    def _tensor(self, images: np.ndarray) -> torch.Tensor:
        # A request's bytes are read-only and torch has no read-only tensors.
        writeable = images if images.flags.writeable else images.copy()
        return torch.from_numpy(writeable).to(self.device)


class EagerRunner(_TorchRunner):
    """The network in eager PyTorch, built from `weights.safetensors`."""

    runtime: Runtime = "eager"

    def _load(self, bundle: Bundle) -> torch.nn.Module:
        return network_of(bundle.manifest.stages, read_weights(bundle))


class TorchScriptRunner(_TorchRunner):
    """The scripted network of `model.ts`."""

    runtime: Runtime = "torchscript"

    def _load(self, bundle: Bundle) -> torch.nn.Module:
        with torchscript_notice_filtered():
            # map_location: a model saved on a GPU loads on a machine without one.
            module: torch.nn.Module = torch.jit.load(
                io.BytesIO(bundle.read(TORCHSCRIPT_FILE)), map_location="cpu"
            )
        return module
