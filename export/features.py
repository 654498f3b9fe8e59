"""The features that drift is measured by: what an image is like, and what the model makes of it."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

Feature = Literal["intensity", "ink", "class", "confidence", "gap"]
FEATURES: tuple[Feature, ...] = get_args(Feature)
INK = 0.5  # pixels above it are ink

# Upper bounds of the bins, as of a Prometheus histogram: a value equal to one lies below it, and
# the last bin has none. They never change: a bundle's histograms are compared by them.
_SHARES = (0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.4, 0.6, 0.8)
_CONFIDENCES = (0.5, 0.7, 0.9, 0.95, 0.99, 0.999, 0.9999)
_GAPS = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0)
VALUE_BOUNDS: Mapping[Feature, tuple[float, ...]] = {
    "intensity": _SHARES,  # mean pixel
    "ink": _SHARES,  # share of pixels above INK
    "confidence": _CONFIDENCES,  # softmax probability of the predicted class
    "gap": _GAPS,  # difference of the two largest logits
}


def bounds_of(feature: Feature, classes: int) -> tuple[float, ...]:
    """Return the upper bounds of a feature's bins; each class has a bin of its own."""
    return tuple(map(float, range(classes - 1))) if feature == "class" else VALUE_BOUNDS[feature]


def features_of(pixels: np.ndarray, logits: np.ndarray) -> dict[Feature, np.ndarray]:
    """Return the features, [N] each, of images [N, ...] in 0..1 and their logits [N, classes >= 2].

    The class is its number.
    """
    flat = pixels.reshape(len(pixels), -1)
    exact = logits.astype(np.float64)
    second, first = np.partition(exact, -2, axis=1)[:, -2:].T
    return {
        "intensity": flat.mean(axis=1),
        "ink": np.count_nonzero(flat > INK, axis=1) / flat.shape[1],
        "class": logits.argmax(axis=1),
        "confidence": 1 / np.exp(exact - first[:, np.newaxis]).sum(axis=1),
        "gap": first - second,
    }


def bins_of(values: np.ndarray, bounds: tuple[float, ...]) -> np.ndarray:
    """Return the number of each value's bin, 0 to len(bounds)."""
    return np.searchsorted(bounds, values, side="left")
