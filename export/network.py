"""The forward pass in PyTorch: the one definition that is trained, scripted and run eagerly."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from export.architecture import Stage


class Network(nn.Module):
    """Flatten, then Linear and ReLU in turn, as the stages say.

    Images of shape [N, H, W] become logits of shape [N, classes].
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.layers = nn.ModuleDict()
        for before, stage in pairwise(stages):
            if stage.operation == "Flatten":
                self.layers[stage.name] = nn.Flatten()
            elif stage.operation == "Linear":
                self.layers[stage.name] = nn.Linear(before.size, stage.size)
            elif stage.operation == "ReLU":
                self.layers[stage.name] = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        values = images
        for layer in self.layers.values():
            values = layer(values)
        return values

    @torch.jit.export
    def trace(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the input under "images" and the value of every layer under its name."""
        traced = {"images": images}
        values = images
        for name, layer in self.layers.items():
            values = layer(values)
            traced[name] = values
        return traced

    @torch.jit.export
    def intervene(
        self, images: torch.Tensor, changes: dict[str, list[torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Return what `trace` returns, with changes by layer; "images" changes the input."""
        values = changed(images, changes, "images")
        traced = {"images": values}
        for name, layer in self.layers.items():
            values = changed(layer(values), changes, name)
            traced[name] = values
        return traced


def changed(
    values: torch.Tensor, changes: dict[str, list[torch.Tensor]], name: str
) -> torch.Tensor:
    """Return the values of a layer with its changes, the parts of a StageChanges in order."""
    if name not in changes:
        return values
    return change(values, changes[name])


def change(values: torch.Tensor, parts: list[torch.Tensor]) -> torch.Tensor:
    """Return values with K elements replaced, as export/runtimes/changes.py says."""
    at, source, scale, shift, low, high = parts[0], parts[1], parts[2], parts[3], parts[4], parts[5]
    flat = values.reshape(-1)
    replaced = torch.minimum(torch.maximum(flat[source] * scale + shift, low), high)
    return flat.index_copy(0, at, replaced).reshape(values.shape)


def weights_of(network: Network) -> dict[str, np.ndarray]:
    """Return the parameters by name ("linear1.weight": [out, in], "linear1.bias": [out], …)."""
    prefix = "layers."
    return {
        name.removeprefix(prefix): parameter.detach().cpu().numpy().copy()
        for name, parameter in network.state_dict().items()
    }


def network_of(stages: Sequence[Stage], weights: Mapping[str, np.ndarray]) -> Network:
    """Return the network with these weights, in evaluation mode.

    Raises:
        RuntimeError: a parameter is missing, left over or of another shape.
    """
    network = Network(stages)
    network.load_state_dict(
        {f"layers.{name}": torch.from_numpy(array.copy()) for name, array in weights.items()}
    )
    return network.eval().requires_grad_(requires_grad=False)
