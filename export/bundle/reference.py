"""The drift reference: the features of the images that a model was trained on, as histograms."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from pydantic import NonNegativeInt, PositiveInt, ValidationError, model_validator

from export.bundle.manifest import DRIFT_REFERENCE_FILE, Record
from export.bundle.reading import Bundle
from export.errors import BundleError
from export.features import FEATURES, Feature, bins_of, bounds_of, features_of

MAX_REFERENCE_BYTES = 1_000_000  # of the file: a server keeps it in memory


class Histogram(Record):
    """Images by the bins of one feature; the last bin has no upper bound."""

    upper_bounds: tuple[float, ...]
    counts: tuple[NonNegativeInt, ...]

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.counts) != len(self.upper_bounds) + 1:
            raise ValueError(f"{len(self.counts)} counts for {len(self.upper_bounds)} bounds")
        if not all(low < high for low, high in pairwise(self.upper_bounds)):
            raise ValueError(f"expected ascending bounds, got {list(self.upper_bounds)}")
        return self


class DriftReference(Record):
    """What a served model's images are compared with: those that it was trained on."""

    dataset_sha256: str  # of the manifest's dataset
    images: PositiveInt
    histograms: dict[Feature, Histogram]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if missing := set(FEATURES) - self.histograms.keys():
            raise ValueError(f"no histogram of {', '.join(sorted(missing))}")
        for feature, histogram in self.histograms.items():
            if (total := sum(histogram.counts)) != self.images:
                raise ValueError(f"{feature}: {total} images in the bins, expected {self.images}")
        return self


def count_features(
    parts: Iterable[tuple[np.ndarray, np.ndarray]], classes: int, dataset_sha256: str
) -> DriftReference:
    """Return the reference of images, which come in parts: pixels [N, ...], logits [N, classes]."""
    bounds = {feature: bounds_of(feature, classes) for feature in FEATURES}
    counts = {feature: np.zeros(len(bounds[feature]) + 1, np.int64) for feature in FEATURES}
    images = 0
    for pixels, logits in parts:
        images += len(pixels)
        for feature, values in features_of(pixels, logits).items():
            bins = bins_of(values, bounds[feature])
            counts[feature] += np.bincount(bins, minlength=len(counts[feature]))
    histograms = {
        feature: Histogram(upper_bounds=bounds[feature], counts=tuple(counts[feature].tolist()))
        for feature in FEATURES
    }
    return DriftReference(dataset_sha256=dataset_sha256, images=images, histograms=histograms)


def write_reference(reference: DriftReference) -> bytes:
    """Return `drift_reference.json`."""
    return reference.model_dump_json(indent=2).encode() + b"\n"


def read_reference(bundle: Bundle) -> DriftReference | None:
    """Return the reference of a bundle; None if it was published without one.

    Raises:
        BundleError: it is not what it must be.
    """
    manifest = bundle.manifest
    entry = next((file for file in manifest.files if file.name == DRIFT_REFERENCE_FILE), None)
    if entry is None:
        return None
    path = bundle.path / DRIFT_REFERENCE_FILE
    if entry.size_bytes > MAX_REFERENCE_BYTES:
        raise BundleError(
            f"{path}: expected at most {MAX_REFERENCE_BYTES} bytes, got {entry.size_bytes}"
        )
    try:
        reference = DriftReference.model_validate_json(bundle.read(DRIFT_REFERENCE_FILE))
    except ValidationError as error:
        raise BundleError(f"{path}: is no drift reference: {_text(error)}") from None
    if reference.dataset_sha256 != manifest.dataset.sha256:
        raise BundleError(
            f"{path}: is of the dataset {reference.dataset_sha256}, the model's is "
            f"{manifest.dataset.sha256}"
        )
    for feature, histogram in reference.histograms.items():
        expected = bounds_of(feature, len(manifest.labels))
        if histogram.upper_bounds != expected:
            raise BundleError(
                f"{path}: {feature}: expected the bins of this release, {_listed(expected)}, got "
                f"{_listed(histogram.upper_bounds)}"
            )
    return reference


def _listed(bounds: Sequence[float]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds)


def _text(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'reference'}: {one['msg']}" for one in error.errors()
    )
