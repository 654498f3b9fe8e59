"""The oracle: the forward pass in float64 NumPy, from the weights alone."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from export.architecture import Device, Precision, Stage
from export.runtimes.changes import Changes, StageChanges

NO_CHANGES: Changes = {}


class NumpyRunner:
    """Computes every stage in float64; it shares no code with the runtimes."""

    def __init__(self, stages: Sequence[Stage], weights: Mapping[str, np.ndarray]) -> None:
        self._stages = stages
        self.weights = {
            name: array.astype(np.float64, copy=False) for name, array in weights.items()
        }

    def trace(self, images: np.ndarray, changes: Changes = NO_CHANGES) -> dict[str, np.ndarray]:
        """Return every stage's output, float64 [N, …], by stage name, with changes."""
        return {name: after for name, _, after in self._steps(images, changes)}

    def trace_both(
        self, images: np.ndarray, changes: Changes
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return what `trace` returns, and the changed stages' outputs before their own changes."""
        values, before = {}, {}
        for name, unchanged, after in self._steps(images, changes):
            values[name] = after
            if name in changes:
                before[name] = unchanged
        return values, before

    def _steps(
        self, images: np.ndarray, changes: Changes
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield each stage's name and its output before and after its own changes."""
        value = images.astype(np.float64)
        for stage in self._stages:
            if stage.operation == "Flatten":
                value = value.reshape(len(value), -1)
            elif stage.operation == "Linear":
                weight, bias = (self.weights[f"{stage.name}.{p}"] for p in ("weight", "bias"))
                value = value @ weight.T + bias
            elif stage.operation == "ReLU":
                value = np.maximum(value, 0.0)
            unchanged = value
            if stage.name in changes:
                value = _changed(value, changes[stage.name])
            yield stage.name, unchanged, value


def _changed(value: np.ndarray, changes: StageChanges) -> np.ndarray:
    flat = value.reshape(-1)
    scale, shift = (part.astype(np.float64) for part in (changes.scale, changes.shift))
    moved = scale * flat[changes.source] + shift
    flat = flat.copy()
    flat[changes.at] = np.minimum(np.maximum(moved, changes.low), changes.high)
    return flat.reshape(value.shape)


class RoundedNumpyRunner:
    """The oracle as a runtime: the exact outputs, each rounded to float32 once.

    No runtime can be nearer to the oracle than this one.
    """

    runtime = "numpy"
    device: Device = "cpu"
    provider = "numpy"
    precision: Precision = "float32"
    batch_invariant = False  # a product of matrices in float64 depends on the batch

    def __init__(self, oracle: NumpyRunner, logits: str) -> None:
        self._oracle = oracle
        self._logits = logits

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the logits, [N, classes]."""
        return self.trace(images, [self._logits])[self._logits]

    def trace(self, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the named stages' outputs, each [N, …], by stage name."""
        exact = self._oracle.trace(images)
        with np.errstate(over="ignore"):  # then its error is infinite, as the bound is
            return {name: exact[name].astype(np.float32) for name in stages}
