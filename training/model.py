"""The network that is trained: normalisation in front of the served network."""

import torch
from torch import nn

from export.architecture import Stage
from export.network import Network


class NormalisedNetwork(nn.Module):
    """Takes pixels 0..1, subtracts the mean, divides by the standard deviation, runs the network.

    Images [N, 28, 28] become logits [N, 10].
    """

    def __init__(self, stages: tuple[Stage, ...], mean: float, standard_deviation: float) -> None:
        super().__init__()
        self.mean = mean
        self.standard_deviation = standard_deviation
        self.network = Network(stages)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.network((images - self.mean) / self.standard_deviation)
        return logits

    def trace(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the value of every layer under its name, the logits last."""
        normalised = (images - self.mean) / self.standard_deviation
        values: dict[str, torch.Tensor] = self.network.trace(normalised)
        return values

    @torch.no_grad()
    def folded(self) -> Network:
        """Return the same function of plain pixels, as a network without normalisation.

        W·(x - m)/s + b = (W/s)·x + (b - (m/s)·W·1), computed in float64 and
        rounded once. The background, exactly 0, stays exactly 0.
        """
        network = Network(self.network.stages)
        network.load_state_dict(self.network.state_dict())
        first = next(layer for layer in network.layers.values() if isinstance(layer, nn.Linear))
        weight, bias = first.weight.double(), first.bias.double()
        first.weight.copy_(weight / self.standard_deviation)
        first.bias.copy_(bias - weight.sum(dim=1) * (self.mean / self.standard_deviation))
        return network.eval()
