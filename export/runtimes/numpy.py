"""The oracle: the forward pass in float64 NumPy, from the weights alone."""

from collections.abc import Mapping, Sequence

import numpy as np

from export.architecture import Stage


class NumpyRunner:
    """Computes every stage in float64; it shares no code with the runtimes."""

    def __init__(self, stages: Sequence[Stage], weights: Mapping[str, np.ndarray]) -> None:
        self._stages = stages
        self._weights = {name: array.astype(np.float64) for name, array in weights.items()}

    def trace(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return every stage's output, float64 [N, …], by stage name."""
        value = images.astype(np.float64)
        values = {}
        for stage in self._stages:
            if stage.operation == "Flatten":
                value = value.reshape(len(value), -1)
            elif stage.operation == "Linear":
                weight, bias = (self._weights[f"{stage.name}.{p}"] for p in ("weight", "bias"))
                value = value @ weight.T + bias
            elif stage.operation == "ReLU":
                value = np.maximum(value, 0.0)
            values[stage.name] = value
        return values
