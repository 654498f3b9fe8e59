"""Gradients, and contributions in the active region: gradient times value.

**The region.** A ReLU passes a value on or makes it 0. Which it does for each unit, taken from the
run of the runtime itself, determines a region of images in which the score is an affine function

    A(x) = Σ g_i·x_i + B,      B = Σ over the layers l of G_l·b_l

with g the gradient with respect to the image, G_l that with respect to the output of layer l, and
b_l its biases. Contributions are g_i·x_i (Baehrens et al. 2010; Shrikumar, Greenside, Kundaje
2017), those of a stage's units G·value; the biases of the layers after it are its bias term.

**The bound of the residual.** The runtime's own output of a layer is W·h + b + δ, with h its own
input to the layer, and its ReLU is exact. A is affine, so each δ passes on to the score by the
gradient alone: the runtime's score is exactly A(x) + Σ G_l·δ_l. No ReLU has another sign here than
in A, since A is made of the runtime's own signs. δ is rounding of one layer whose inputs are known,
bounded by `rounding_of` (export/parity/bounds.py) with inputs that carry no error. That takes
|W·h + b|; the runtime's own output is off from it by |δ|, which changes the bound R by at most
γ/2·|δ|, so that |δ| ≤ R·(1 + γ) with γ = γ(in + 1) ≤ 1/2. To it comes the rounding of float64 of
the attribution itself (`Layer.own_rounding`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from export.attribution.network import Network, largest_magnitude, weighted
from export.parity.bounds import ARITHMETIC, OWN_ROUNDING, rounding_of


@dataclass(frozen=True)
class Contributions:
    """What a method gives for N images, in float64."""

    pixels: np.ndarray  # [N, pixels]
    stage: np.ndarray | None  # [N, units] of the chosen stage
    bias: np.ndarray  # [N], what the contributions leave
    stage_bias: np.ndarray  # [N], the same for the stage
    error: np.ndarray  # [N], bound of |score - bias - Σ pixels| of a runtime

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """Return those of all images of several, of which all have a chosen stage or none has."""
        stages = [each.stage for each in several if each.stage is not None]
        return cls(
            np.concatenate([each.pixels for each in several]),
            np.concatenate(stages) if stages else None,
            np.concatenate([each.bias for each in several]),
            np.concatenate([each.stage_bias for each in several]),
            np.concatenate([each.error for each in several]),
        )


def gradients(
    network: Network, values: Mapping[str, np.ndarray], selector: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the gradients of scores with respect to every stage's output, [N, units], by name.

    `values` has the outputs of the ReLUs, [N, units]; `selector` is the gradient with respect to
    the logits. That of ReLU at 0 is 0.
    """
    gradient = selector
    found = {network.stages[-1].name: gradient}
    for before, stage in reversed(network.steps):
        if stage.operation == "Linear":
            gradient = gradient @ network.layers[stage.name].weight
        elif stage.operation == "ReLU":
            gradient = gradient * (values[stage.name] > 0)
        found[before.name] = gradient
    return found


def saliency(
    network: Network, values: Mapping[str, np.ndarray], selector: np.ndarray, stage: str | None
) -> Contributions:
    """Return the plain gradients, which leave nothing and add up to nothing."""
    found = gradients(network, values, selector)
    none = np.zeros(len(selector))
    pixels = found[network.stages[0].name]
    return Contributions(pixels, None if stage is None else found[stage], none, none, none)


def linear_region(
    network: Network, values: Mapping[str, np.ndarray], selector: np.ndarray, stage: str | None
) -> Contributions:
    """Return gradient times value; `values` are the runtime's outputs of every stage, flat."""
    found = gradients(network, values, selector)
    biases = {name: found[name] @ layer.bias for name, layer in network.layers.items()}
    none = np.zeros(len(selector))
    pixels = network.stages[0].name
    errors = (
        _layer_error(network, each.name, values[before.name], values[each.name], found[each.name])
        for before, each in network.steps
        if each.operation == "Linear"
    )
    error = sum(errors, none)
    chosen = None if stage is None else found[stage] * values[stage]
    found[pixels] *= values[pixels]  # in place: fresh memory takes longer than the arithmetic
    after = [] if stage is None else network.layers_after(stage)
    return Contributions(
        pixels=found[pixels],
        stage=chosen,
        bias=sum(biases.values(), none),
        stage_bias=sum((biases[name] for name in after), none),
        error=error,
    )


def _layer_error(
    network: Network, name: str, inputs: np.ndarray, outputs: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """Return what a layer's rounding, the runtime's and our own, may change of the scores, [N]."""
    layer = network.layers[name]
    value = inputs.astype(np.float64)
    exact = np.zeros((1, value.shape[1]))
    rounding = rounding_of(layer.absolute, value, exact, outputs, network.precision)
    terms = (value.shape[1] + 1) * ARITHMETIC[network.precision].sum_roundoff
    rounding = rounding * (1 + 4 * terms) * OWN_ROUNDING
    return weighted(gradient, rounding) + layer.own_rounding(gradient, largest_magnitude(value))
