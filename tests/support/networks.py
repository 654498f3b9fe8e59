"""Networks with random weights, and their forward pass in float32 and in torch's float64."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from export.architecture import Stage, parameter_shapes


def random_weights(stages: Sequence[Stage], seed: int) -> dict[str, np.ndarray]:
    """Return seeded weights of the usual size, float32."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in parameter_shapes(stages).items()
    }


def run_in_float32(
    stages: Sequence[Stage], weights: Mapping[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
    """Return every stage's output, float32 [N, …], as a runtime computes it."""
    value, values = images, {}
    for stage in stages:
        if stage.operation == "Flatten":
            value = value.reshape(len(value), -1)
        elif stage.operation == "Linear":
            value = value @ weights[f"{stage.name}.weight"].T + weights[f"{stage.name}.bias"]
        elif stage.operation == "ReLU":
            value = np.maximum(value, np.float32(0))
        values[stage.name] = value
    return values


class TorchOracle:
    """A network in float64 with torch's autograd."""

    def __init__(self, stages: Sequence[Stage], weights: Mapping[str, np.ndarray]) -> None:
        self.stages = stages
        self._weights = {name: torch.from_numpy(each).double() for name, each in weights.items()}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return every stage's output, [N, …]."""
        value, values = images, {}
        for stage in self.stages:
            if stage.operation == "Flatten":
                value = value.flatten(1)
            elif stage.operation == "Linear":
                weight, bias = (self._weights[f"{stage.name}.{p}"] for p in ("weight", "bias"))
                value = value @ weight.T + bias
            elif stage.operation == "ReLU":
                value = value.relu()
            values[stage.name] = value
        return values

    def gradients(
        self, images: np.ndarray, target: int, other: int | None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return every stage's output, and the gradient of the score with respect to it."""
        values = self.forward(torch.from_numpy(images).double().requires_grad_())
        names = [stage.name for stage in self.stages]
        logits = values[names[-1]]
        score = logits[:, target] - (0 if other is None else logits[:, other])
        found = torch.autograd.grad(score.sum(), [values[name] for name in names])
        gradients = dict(zip(names, (each.numpy() for each in found), strict=True))
        return {name: each.detach().numpy() for name, each in values.items()}, gradients
