"""Integrated gradients, exact by the breakpoints of the ReLUs along the path.

**The integral.** On the straight path x(t) = x' + t·(x - x') from a baseline x' to an image x, the
contribution of pixel i is (x_i - x'_i) times the mean over t in 0..1 of the score's gradient at
x(t) (Sundararajan, Taly, Yan, Axiomatic attribution for deep networks, 2017). Every stage is
piecewise affine in t, so the mean needs no numerical integration:

- Before the first ReLU a stage is affine in t. Between two points of the path, on a segment, a ReLU
  breaks at the points where one of its units crosses 0. Cut there, each segment has a ReLU that is
  affine in t, and so is the next layer; and so on, layer by layer.
- Nothing breaks after the last ReLU, so it cuts nothing: the mean of its derivative over a segment
  is the share of the segment on which the unit is active, up / (up + down) with up and down the
  parts of its way above and below 0. With one hidden layer this is a closed form.
- Backwards, the mean gradient of a segment is that of its parts, weighted by their lengths.

A unit of a stage contributes the integral of the score's derivative with respect to it along the
path, Σ mean gradient · change over the segments (conductance: Dhamdhere, Sundararajan, Yan, How
important is a neuron?, 2018). Pixels are the units of the first stage.

**Completeness.** up / (up + down) times the change of a ReLU's input is the change of its output,
whatever the segment. So in exact arithmetic Σ mean gradient · change is the same at every stage,
the last included, where it is the score of x less that of x'. The residual is what three things
make: the runtime's rounding of the score of x (export/parity/bounds.py); float64 in the layers and
in the gradients through them (`Layer.own_rounding`); float64 in a ReLU. There, with ε = 2⁻⁵³, a
value between two points is off by 5ε times the largest, a change by 10ε; a share by 3ε, its product
by ε; a part's length by ε, and the weighted sum of the n parts of a segment by (n + 1)ε, at most 2ε
for each part. Each of these but the first applies to a change of at most twice the largest value:
for each segment less than 32ε times |gradient|·largest value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.attribution.network import (
    ROUNDOFF,
    UNDERFLOW,
    Layer,
    Network,
    largest_magnitude,
    weighted,
)
from export.attribution.region import Contributions
from export.attribution.score import Score, score_bound

RELU_ROUNDING = 32 * ROUNDOFF
CHUNK_ELEMENTS = 1 << 20  # of an array of points; 8 MiB


@dataclass(frozen=True)
class Segments:
    """S segments of paths, those of an image one after the other: the positions of their points."""

    left: np.ndarray  # [S]
    right: np.ndarray  # [S]
    image: np.ndarray  # [S], rising


@dataclass(frozen=True)
class Split:
    """How segments were cut into parts: the first part of each, and each part's share of it."""

    starts: np.ndarray  # [segments]
    lengths: np.ndarray  # [parts]


@dataclass(frozen=True)
class Layered:
    """A linear layer on the way, and the largest magnitude of its inputs on each segment, [S]."""

    layer: Layer
    reach: np.ndarray


@dataclass(frozen=True)
class Rectified:
    """A ReLU on the way, for each segment and unit, [S, units]."""

    shares: np.ndarray  # of the segment on which the unit is active
    reach: np.ndarray  # largest magnitude of the unit's input
    split: Split | None


@dataclass(frozen=True)
class Passed:
    """A stage that the paths went through, as the way back needs it."""

    image: np.ndarray  # of each segment, [S]
    operation: Layered | Rectified | None  # None: it computes nothing
    change: np.ndarray | None  # of each unit on each segment, [S, units], of the chosen stage


def integrated_gradients(
    network: Network, pixels: np.ndarray, baseline: np.ndarray, score: Score, stage: str | None
) -> Contributions:
    """Return the contributions to scores of images [N, pixels], from a baseline [pixels]."""
    count = max(1, CHUNK_ELEMENTS // elements_per_image(network))
    several = [
        _integrate(
            network,
            pixels[start : start + count],
            baseline,
            Score(score.target[start : start + count], score.other),
            stage,
        )
        for start in range(0, len(pixels), count)
    ]
    return several[0] if len(several) == 1 else Contributions.joined(several)


def elements_per_image(network: Network) -> int:
    """Return about how many numbers the points of an image's path have at one stage, at most.

    A unit before the last ReLU cuts a path about once.
    """
    sizes = [stage.size for stage in network.stages]
    relus = [at for at, stage in enumerate(network.stages) if stage.operation == "ReLU"]
    points = 2 + sum(sizes[at] for at in relus[:-1])
    first = relus[0] if relus else len(sizes)
    return max(2 * max(sizes), *(points * size for size in sizes[first:]), 0)


def _integrate(
    network: Network, pixels: np.ndarray, baseline: np.ndarray, score: Score, stage: str | None
) -> Contributions:
    points = np.empty((1 + len(pixels), len(baseline)))  # the first is every path's start
    points[0], points[1:] = baseline, pixels
    values, passed = _forward(network, points, stage)
    logits = values[network.stages[-1].name]
    selector = score.selector(logits.shape[1])
    gradient, chosen, error = _backward(passed, selector)
    exact = {name: points[1:] for name, points in values.items()}
    bias = score.values(logits[:1])
    own = 4 * ROUNDOFF * np.abs(logits[0]).max()  # the difference of two logits
    error += own + score_bound(network, exact, selector)
    points[1:] -= points[0]
    points[1:] *= gradient
    return Contributions(
        pixels=points[1:],
        stage=chosen,
        bias=bias,
        stage_bias=bias if stage else np.zeros(len(pixels)),
        error=error,
    )


def _forward(
    network: Network, points: np.ndarray, stage: str | None
) -> tuple[Mapping[str, np.ndarray], Sequence[Passed]]:
    """Return each stage's values at the start and the ends, [1 + N, units], and the way there."""
    images = len(points) - 1
    segments = Segments(np.zeros(images, np.intp), np.arange(1, images + 1), np.arange(images))
    last_relu = [None, *network.names("ReLU")][-1]
    values, passed = {}, []
    for each in network.stages:
        operation: Layered | Rectified | None = None
        if each.operation == "Linear":
            operation = Layered(network.layers[each.name], _largest(points, segments))
            points = points @ operation.layer.weight.T + operation.layer.bias
        elif each.operation == "ReLU":
            split = None
            if each.name != last_relu:
                points, segments, split = _cut(points, segments)
            left, right = points[segments.left], points[segments.right]
            reach = np.maximum(np.abs(left), np.abs(right))
            operation = Rectified(_active_shares(left, right), reach, split)
            points = np.maximum(points, 0.0)
        change = points[segments.right] - points[segments.left] if each.name == stage else None
        passed.append(Passed(segments.image, operation, change))
        values[each.name] = points[: images + 1]
    return values, passed


def _backward(
    passed: Sequence[Passed], selector: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return the mean gradient of the pixels, the contributions of the chosen stage, the error."""
    images = len(selector)
    gradient = selector[passed[-1].image]
    chosen, error = None, np.zeros(images)
    for stage in reversed(passed):
        if stage.change is not None:
            chosen = _by_image(gradient * stage.change, stage.image, images)
        match stage.operation:
            case Layered(layer, reach):
                lost = layer.own_rounding(gradient, reach)
                gradient = gradient @ layer.weight
            case Rectified(shares, reach, split):
                lost = RELU_ROUNDING * weighted(gradient, reach) + UNDERFLOW
                gradient = gradient * shares
                if split is not None:
                    parts = gradient * split.lengths[:, None]
                    gradient = np.add.reduceat(parts, split.starts, axis=0)
            case None:
                continue
        error += _by_image(lost, stage.image, images)
    return gradient, chosen, error


def _cut(points: np.ndarray, segments: Segments) -> tuple[np.ndarray, Segments, Split]:
    """Cut each segment where a unit crosses 0; the new points come after the others."""
    left, right = points[segments.left], points[segments.right]
    change = right - left
    segment, unit = np.nonzero((left < 0) & (right > 0) | (left > 0) & (right < 0))
    at = left[segment, unit] / -change[segment, unit]  # a share of the segment
    order = np.lexsort((at, segment))
    segment, at = segment[order], at[order]
    is_new = (at > 0) & (at < 1)
    is_new[1:] &= (at[1:] > at[:-1]) | (segment[1:] > segment[:-1])
    segment, at = segment[is_new], at[is_new]

    parts = np.bincount(segment, minlength=len(left)) + 1
    starts = np.cumsum(parts) - parts
    is_first = np.zeros(len(left) + len(at), bool)
    is_first[starts] = True
    is_last = np.roll(is_first, -1)
    new = np.arange(len(points), len(points) + len(at))
    cut = Segments(
        _merged(is_first, segments.left, new),
        _merged(is_last, segments.right, new),
        np.repeat(segments.image, parts),
    )
    lengths = _merged(is_last, np.ones(len(left)), at) - _merged(is_first, np.zeros(len(left)), at)
    between = left[segment] + at[:, None] * change[segment]
    return np.concatenate([points, between]), cut, Split(starts, lengths)


def _merged(is_old: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    merged = np.empty(len(is_old), old.dtype)
    merged[is_old], merged[~is_old] = old, new
    return merged


def _active_shares(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the share of each way from left to right that is above 0; of a way that is 0, 0."""
    up = np.maximum(np.maximum(left, right), 0.0)
    down = np.maximum(-np.minimum(left, right), 0.0)
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.where(up == 0, 0.0, up / (up + down))


def _largest(points: np.ndarray, segments: Segments) -> np.ndarray:
    """Return the largest magnitude on each segment, [S]."""
    largest = largest_magnitude(points)
    return np.maximum(largest[segments.left], largest[segments.right])


def _by_image(rows: np.ndarray, image: np.ndarray, images: int) -> np.ndarray:
    """Return the sums of the rows of each image."""
    if len(rows) == images:
        return rows
    return np.add.reduceat(rows, np.searchsorted(image, np.arange(images)), axis=0)
