"""The recorded vectors: a few images with the exact outputs of every stage and their bounds.

A server has no torch. With `vectors.npz` it checks the session
that it has loaded, on its own machine, before it reports that it is ready.
"""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from export.architecture import Stage
from export.bundle.manifest import VECTORS_FILE
from export.bundle.reading import Bundle
from export.bundle.weights import read_weights
from export.errors import BundleError, ExportError, ParityError
from export.parity.bounds import Reference, bounded
from export.parity.intervened import check_interventions, probes_of
from export.parity.probes import vector_images
from export.parity.tally import Tally, first_divergence
from export.runtimes.numpy import NumpyRunner
from export.runtimes.runner import InterveningRunner

IMAGES, VALUE, BOUND = "images", "value", "bound"


def write_vectors(
    stages: Sequence[Stage], weights: Mapping[str, np.ndarray], low: float, high: float
) -> bytes:
    """Return `vectors.npz`: "images" [N, H, W], and "value/…" and "bound/…" for every stage."""
    images = vector_images(stages, weights, low, high)
    exact = NumpyRunner(stages, weights).trace(images)
    reference = bounded(stages, weights, exact, "float32")
    arrays = {IMAGES: images}
    for stage in stages:
        arrays[f"{VALUE}/{stage.name}"] = reference.values[stage.name]
        arrays[f"{BOUND}/{stage.name}"] = reference.bounds[stage.name]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


class VectorCheck(NamedTuple):
    """What a check of the recorded vectors found."""

    images: int
    # The largest error of a logit, over its own bound. Of the stages before, an element that is one
    # or two roundings comes near to its bound in the best of runs.
    error_ratio: float


def check_vectors(bundle: Bundle, runner: InterveningRunner) -> VectorCheck:
    """Run the recorded vectors; return how many, and how near to their bounds they came.

    Raises:
        ParityError: a stage diverges; the text names it.
        BundleError: the file is damaged, or has not the vectors of this network.
    """
    images, reference = _read(bundle)
    manifest = bundle.manifest
    recorded = manifest.recorded_errors(runner.runtime, runner.provider, runner.precision)
    tally = Tally(manifest.stages, runner, recorded)
    try:
        tally.add(images, {"float32": reference})
    except Exception as error:  # whatever a runtime raises
        raise ParityError(f"{bundle.path}: {runner.runtime} can't run: {error}") from error
    if violation := first_divergence(tally.violations()):
        raise ParityError(
            f"{bundle.path}: {runner.runtime} on {runner.provider} does not compute this model: "
            f"{violation.text}; restore the bundle, train again, or serve with another --runtime"
        )
    if runner.can_intervene:
        probes = probes_of(manifest.stages, read_weights(bundle), images, runner.precision)
        check_interventions(bundle, probes, runner, images)
    logits = tally.stages[manifest.stages[-1].name]
    return VectorCheck(len(images), logits.record().margin)


def recorded_images(bundle: Bundle) -> np.ndarray:
    """Return the images of the recorded vectors, FLOAT32 [N, H, W].

    Raises:
        BundleError: the file is damaged, or has not the vectors of this network.
    """
    return _read(bundle)[0]


def _read(bundle: Bundle) -> tuple[np.ndarray, Reference]:
    path = bundle.path / VECTORS_FILE
    names = [stage.name for stage in bundle.manifest.stages]
    try:
        with np.load(io.BytesIO(bundle.read(VECTORS_FILE)), allow_pickle=False) as arrays:
            values, bounds = (
                {name: arrays[f"{part}/{name}"] for name in names} for part in (VALUE, BOUND)
            )
            images: np.ndarray = arrays[IMAGES]
    except ExportError:
        raise
    except (
        Exception
    ) as error:  # NumPy raises many types for bytes that are not an archive of arrays
        raise BundleError(f"{path}: no recorded vectors of every stage: {error}") from error
    if images.size == 0:
        raise BundleError(f"{path}: no images; expected at least one")
    if not all(np.isfinite(bound).all() for bound in bounds.values()):
        raise BundleError(f"{path}: a bound is not finite; every bound must be")
    return images, Reference(values, bounds)
