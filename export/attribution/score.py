"""The score that is attributed: the logit of a class, or the difference of two."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from export.attribution.network import Network, weighted
from export.parity.bounds import OWN_ROUNDING, bounds_of, rounding_of


@dataclass(frozen=True)
class Score:
    """The target class of each of N images, and the class whose logit is taken from its own."""

    target: np.ndarray  # [N]
    other: int | None = None

    @classmethod
    def of(cls, logits: np.ndarray, target: int | None, other: int | None) -> Self:
        """Return that of N images; a target of None is the class of an image's largest logit."""
        if target is None:
            return cls(logits.argmax(axis=1), other)
        return cls(np.full(len(logits), target), other)

    def values(self, logits: np.ndarray) -> np.ndarray:
        """Return the scores [N] in float64, of logits [N, classes] or, the same for all, [1, …]."""
        rows = np.arange(len(logits)) if len(logits) == len(self.target) else 0
        scores: np.ndarray = logits[rows, self.target].astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            return scores if self.other is None else scores - logits[:, self.other]

    def selector(self, classes: int) -> np.ndarray:
        """Return the gradient of the score with respect to the logits, [N, classes]."""
        found = np.zeros((len(self.target), classes))
        found[np.arange(len(self.target)), self.target] = 1.0
        if self.other is not None:
            found[:, self.other] -= 1.0  # 0 where both are the same class
        return found


def score_bound(
    network: Network, exact: Mapping[str, np.ndarray], selector: np.ndarray
) -> np.ndarray:
    """Return the bound of the runtime's error of the scores, [N].

    `exact` are the outputs of every stage in float64, [N, units]. The inputs of the last layer are
    the same for all logits, so that their errors count by the difference of the weights.
    """
    stages = list(network.stages[:-1])  # the last computes nothing
    before, last = stages[-2:] if len(stages) > 1 else (stages[0], stages[0])
    if last.operation != "Linear":
        bounds = bounds_of(stages, network.absolute, exact, network.precision)
        return weighted(selector, bounds[last.name])
    bounds = bounds_of(stages[:-1], network.absolute, exact, network.precision)
    layer, bound = network.layers[last.name], bounds[before.name]
    rounding = rounding_of(
        layer.absolute, exact[before.name], bound, exact[last.name], network.precision
    )
    total = weighted(selector @ layer.weight, bound) + weighted(selector, rounding)
    return total * OWN_ROUNDING
