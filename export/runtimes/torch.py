"""The torch runtimes: eager, from the weights alone, TorchScript, and torch.export's pt2."""

import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.export.pt2_archive import is_pt2_package

from export.architecture import Device, Form, Precision, Runtime
from export.bundle.manifest import PT2_FILE, TORCHSCRIPT_FILE
from export.bundle.reading import Bundle
from export.bundle.weights import read_weights
from export.errors import BundleError, InterventionsUnavailableError, RuntimeUnavailableError
from export.network import changed, network_of
from export.runtimes.changes import Changes
from export.runtimes.torchscript_notice import torchscript_notice_filtered

Predict = Callable[[torch.Tensor], torch.Tensor]
Trace = Callable[[torch.Tensor], dict[str, torch.Tensor]]
TorchChanges = dict[str, list[torch.Tensor]]  # by layer, the parts of a StageChanges
Intervene = Callable[[torch.Tensor, TorchChanges], dict[str, torch.Tensor]]

# The precisions of factors that each device offers: torch's own setting and its value.
# Torch only promises to allow a precision; the comparison detects whether it was used.
_BACKENDS: Any = torch.backends  # mkldnn.matmul is unknown to type checkers
_MATMUL: dict[tuple[Device, Precision], tuple[Any, str]] = {
    ("cpu", "float32"): (_BACKENDS.mkldnn.matmul, "ieee"),
    ("cpu", "tf32"): (_BACKENDS.mkldnn.matmul, "tf32"),
    ("cpu", "bfloat16"): (_BACKENDS.mkldnn.matmul, "bf16"),
    ("cuda", "float32"): (_BACKENDS.cuda.matmul, "ieee"),
    ("cuda", "tf32"): (_BACKENDS.cuda.matmul, "tf32"),
}


_RUN_LOCK = threading.Lock()  # a run sets torch's precision, which is global to the process


class _TorchRunner:
    """What the torch runtimes share: tensors in and out, without gradients."""

    runtime: Form
    batch_invariant = False  # torch chooses its kernels by the batch

    def __init__(
        self, bundle: Bundle, device: Device, precision: Precision, threads: int | None = None
    ) -> None:
        if device == "cuda":
            _check_cuda()
        if (device, precision) not in _MATMUL:
            raise RuntimeUnavailableError(f"torch.{device} has no setting for {precision} factors")
        if threads is not None:
            torch.set_num_threads(threads)  # of the whole process
        self.device = device
        self.precision = precision
        self.provider = f"torch.{device}"
        self._values = {stage.name: stage.values[self.runtime] for stage in bundle.manifest.stages}
        self._predict, self._trace, self._intervene = self._load(bundle)

    def _load(self, bundle: Bundle) -> tuple[Predict, Trace, Intervene | None]:
        """Return functions for the logits, every value by its name, and those with changes."""
        raise NotImplementedError

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the logits, [N, classes]."""
        with torch.inference_mode(), _factors(self.device, self.precision):
            logits: np.ndarray = self._predict(self._tensor(images)).cpu().numpy()
        return logits

    def trace(self, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the named stages' outputs, each [N, …], by stage name."""
        with torch.inference_mode(), _factors(self.device, self.precision):
            values = self._trace(self._tensor(images))
            return {name: values[self._values[name]].cpu().numpy() for name in stages}

    @property
    def can_intervene(self) -> bool:
        """Whether the bundle's form can do it."""
        return self._intervene is not None

    def intervene(
        self, images: np.ndarray, stages: Sequence[str], changes: Changes
    ) -> dict[str, np.ndarray]:
        """Return the named stages' outputs, each [N, …], with changes, by stage name.

        Raises:
            InterventionsUnavailableError: the bundle was exported without them.
        """
        if self._intervene is None:
            raise InterventionsUnavailableError(f"the method `intervene` of {TORCHSCRIPT_FILE}")
        given = {
            self._values[name]: [self._tensor(part) for part in parts]
            for name, parts in changes.items()
        }
        with torch.inference_mode(), _factors(self.device, self.precision):
            values = self._intervene(self._tensor(images), given)
            return {name: values[self._values[name]].cpu().numpy() for name in stages}

    def _tensor(self, images: np.ndarray) -> torch.Tensor:
        # A request's bytes are read-only and torch has no read-only tensors.
        writeable = images if images.flags.writeable else images.copy()
        return torch.from_numpy(writeable).to(self.device)


class EagerRunner(_TorchRunner):
    """The network in eager PyTorch, built from `weights.safetensors`."""

    runtime = "eager"

    def _load(self, bundle: Bundle) -> tuple[Predict, Trace, Intervene | None]:
        network = network_of(bundle.manifest.stages, read_weights(bundle)).to(self.device)
        return network, network.trace, network.intervene


class TorchScriptRunner(_TorchRunner):
    """The scripted network of `model.ts`."""

    runtime = "torchscript"

    def _load(self, bundle: Bundle) -> tuple[Predict, Trace, Intervene | None]:
        with torchscript_notice_filtered():
            # map_location: a model saved on a GPU loads on a machine without one.
            module = torch.jit.load(
                io.BytesIO(bundle.read(TORCHSCRIPT_FILE)), map_location=self.device
            )
        return module, module.trace, getattr(module, "intervene", None)


class Pt2Runner(_TorchRunner):
    """The exported program of `model.pt2`; its graph with more outputs gives the traces."""

    runtime = "pt2"

    def _load(self, bundle: Bundle) -> tuple[Predict, Trace, Intervene | None]:
        data = bundle.read(PT2_FILE)
        if not is_pt2_package(data):  # torch would try its older formats, with a traceback logged
            raise BundleError(f"{bundle.path / PT2_FILE}: is not an archive of torch.export")
        module = torch.export.load(io.BytesIO(data)).module().to(self.device)
        traced = _layers(module)
        if missing := sorted(set(self._values.values()) - set(traced)):
            raise BundleError(f"{bundle.path / PT2_FILE}: no layer {', '.join(missing)} in it")
        logits = traced[self._values[bundle.manifest.stages[-1].name]]

        def intervene(images: torch.Tensor, changes: TorchChanges) -> dict[str, torch.Tensor]:
            interpreter = _ChangingInterpreter(module, traced, changes)
            interpreter.run(images)
            return interpreter.found

        return _graph_of(module, logits), _graph_of(module, traced), intervene


def _layers(module: torch.fx.GraphModule) -> dict[str, torch.fx.Node]:
    """Return the node that gives each layer's output, and those of the inputs, by name."""
    found = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            found[node.name] = node
        elif stack := node.meta.get("nn_module_stack"):
            path, _ = list(stack.values())[-1]  # the innermost module: "layers.linear1"
            found[path.removeprefix("layers.")] = node
    return found


def _graph_of(
    module: torch.fx.GraphModule, output: torch.fx.Node | dict[str, torch.fx.Node]
) -> torch.fx.GraphModule:
    """Return the same computation with another output.

    It takes and returns plain values: the wrapper of torch.export for arguments of any
    structure costs more than this forward pass.
    """
    graph, copies = torch.fx.Graph(), dict[torch.fx.Node, torch.fx.Node]()
    graph.graph_copy(module.graph, copies)
    graph.output(torch.fx.map_arg(output, copies.__getitem__))
    return torch.fx.GraphModule(module, graph)


class _ChangingInterpreter(torch.fx.Interpreter):
    """Runs a graph node by node, changes the values of its layers, and keeps them in `found`."""

    def __init__(
        self,
        module: torch.fx.GraphModule,
        layers: Mapping[str, torch.fx.Node],
        changes: TorchChanges,
    ) -> None:
        super().__init__(module)
        self._names = {node: name for name, node in layers.items()}
        self._changes = changes
        self.found: dict[str, torch.Tensor] = {}

    def run_node(self, n: torch.fx.Node) -> Any:  # noqa: ANN401 (any node's value)
        """Return the value of a node, changed if it is a layer's."""
        value = super().run_node(n)
        if name := self._names.get(n):
            value = self.found[name] = changed(value, self._changes, name)
        return value


def _check_cuda() -> None:
    """Raise RuntimeUnavailableError unless a GPU computes."""
    if not torch.cuda.is_available():
        raise RuntimeUnavailableError(
            f"torch {torch.__version__} finds no CUDA device on this machine"
        )
    try:
        torch.ones(1, device="cuda").sum().item()
    except RuntimeError as error:  # its memory is full, or it is too old for this torch
        cause, _, _advice = str(error).partition("\n")
        raise RuntimeUnavailableError(
            f"torch {torch.__version__} can't compute on the CUDA device: {cause}"
        ) from error


@contextmanager
def _factors(device: Device, precision: Precision) -> Iterator[None]:
    """Set torch's precision of the factors, which is global to the process, for one run."""
    matmul, value = _MATMUL[device, precision]
    with _RUN_LOCK:
        before = matmul.fp32_precision
        matmul.fp32_precision = value
        try:
            yield
        finally:
            matmul.fp32_precision = before


TORCH_RUNNERS: Mapping[Runtime, type[_TorchRunner]] = {
    "eager": EagerRunner,
    "torchscript": TorchScriptRunner,
    "pt2": Pt2Runner,
}
