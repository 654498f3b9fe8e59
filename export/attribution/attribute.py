"""Attributes the scores of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from export.attribution.network import ROUNDOFF, Network
from export.attribution.path import integrated_gradients
from export.attribution.region import Contributions, linear_region, saliency
from export.attribution.score import Score
from export.parity.bounds import OWN_ROUNDING

Method = Literal["linear_region", "integrated_gradients", "saliency"]

FLOAT32_ROUNDOFF, FLOAT32_UNDERFLOW = 2.0**-24, 2.0**-149


@dataclass(frozen=True)
class Question:
    """What is attributed, and how."""

    method: Method = "linear_region"
    target_class: int | None = None  # None: the predicted class of each image
    other_class: int | None = None  # whose logit is taken from that of the target
    stage: str | None = None  # whose units' contributions are wanted, too
    baseline: np.ndarray | None = None  # float32 [H, W] of integrated gradients; None: zeros


@dataclass(frozen=True)
class Attributions:
    """The attributions of N images.

    Contributions are float32, and the residual is that of the numbers as they are here. Of
    saliency, everything but the gradients, target and score is 0.
    """

    contributions: np.ndarray  # [N, H, W]
    stage_contributions: np.ndarray | None  # [N, …]
    target: np.ndarray  # [N]
    score: np.ndarray  # float64 [N], as the runtime computed it
    bias: np.ndarray  # float64 [N]
    stage_bias: np.ndarray  # float64 [N]
    residual: np.ndarray  # float64 [N]
    residual_bound: np.ndarray  # float64 [N], infinite where numbers may overflow


def needed_stages(network: Network, method: Method) -> Sequence[str]:
    """Return the names of the stages that a run must have to be attributed."""
    operations = {
        "linear_region": ("Input", "Flatten", "Linear", "ReLU", "Output"),
        "integrated_gradients": ("Input", "Output"),
        "saliency": ("Input", "ReLU", "Output"),
    }
    return network.names(*operations[method])


def attribute(
    network: Network, values: Mapping[str, np.ndarray], question: Question
) -> Attributions:
    """Return the attributions of a run: float32 outputs, [N, …], of the needed stages by name."""
    flat = {name: output.reshape(len(output), -1) for name, output in values.items()}
    logits = flat[network.stages[-1].name]
    score = Score.of(logits, question.target_class, question.other_class)
    # Weights that overflow give infinities and NaN, and an infinite bound: no warnings.
    with np.errstate(over="ignore", invalid="ignore"):
        found = _contributions(network, flat, score, question)
        return _rounded(network, found, score, logits, question)


def _contributions(
    network: Network, values: Mapping[str, np.ndarray], score: Score, question: Question
) -> Contributions:
    first, last = network.stages[0], network.stages[-1]
    if question.method == "integrated_gradients":
        baseline = np.zeros(first.size) if question.baseline is None else question.baseline.ravel()
        return integrated_gradients(network, values[first.name], baseline, score, question.stage)
    method = linear_region if question.method == "linear_region" else saliency
    return method(network, values, score.selector(last.size), question.stage)


def _rounded(
    network: Network, found: Contributions, score: Score, logits: np.ndarray, question: Question
) -> Attributions:
    """Round to float32, which is answered; the residual counts that. Overwrites what was found."""
    pixels = found.pixels.astype(np.float32)
    stage = _stage(network, found.stage, question.stage)
    scores = score.values(logits)
    residual = residual_bound = np.zeros(len(pixels))
    if question.method != "saliency":
        magnitude = np.abs(found.pixels, out=found.pixels).sum(axis=1)
        residual = scores - found.bias - pixels.sum(axis=1, dtype=np.float64)
        count = pixels.shape[1]
        # The sum of the pixels, and the product and the difference that each of them is.
        own = 2 * (count + 8) * ROUNDOFF * (magnitude + np.abs(found.bias) + np.abs(scores))
        rounding = FLOAT32_ROUNDOFF * magnitude + count * FLOAT32_UNDERFLOW
        residual_bound = (found.error + rounding + own) * OWN_ROUNDING
        is_known = np.isfinite(residual) & ~np.isnan(residual_bound)
        residual_bound = np.where(is_known, residual_bound, np.inf)
    return Attributions(
        contributions=pixels.reshape(-1, *network.stages[0].shape),
        stage_contributions=stage,
        target=score.target,
        score=scores,
        bias=found.bias,
        stage_bias=found.stage_bias,
        residual=residual,
        residual_bound=residual_bound,
    )


def _stage(network: Network, units: np.ndarray | None, name: str | None) -> np.ndarray | None:
    if units is None:
        return None
    shape = next(stage.shape for stage in network.stages if stage.name == name)
    return units.astype(np.float32).reshape(-1, *shape)
