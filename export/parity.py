"""Parity: every stage of a runtime within its proven bound of the exact forward pass."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from export.architecture import Stage
from export.bounds import BoundedStage, bounded_forward
from export.errors import ParityError
from export.manifest import RuntimeParity, StageParity
from export.runners import Runner

CHUNK_IMAGES = 1000  # bounds the float64 copies to some tens of megabytes


def measure(
    runner: Runner,
    stages: Sequence[Stage],
    weights: Mapping[str, np.ndarray],
    images: np.ndarray,
) -> RuntimeParity:
    """Compare a runner with the exact forward pass of images, FLOAT32 [N, H, W].

    Raises:
        ParityError: a stage departs from its bound or is missing, the logits of
            `trace` and `predict` differ in any bit, or there is nothing to compare.
    """
    if len(images) == 0:
        raise ParityError(f"{runner.runtime}: no images to compare on; that proves nothing")
    worst = {
        stage.name: StageParity(stage=stage.name, max_error=0, bound=0, margin=0)
        for stage in stages
    }
    for chunk in _chunks(images):
        traced = runner.trace(chunk, list(worst))
        _check_same_logits(runner, traced[stages[-1].name], runner.predict(chunk))
        for exact in bounded_forward(stages, weights, chunk):
            found = compare_stage(runner.runtime, exact, traced)
            worst[exact.name] = _worse(worst[exact.name], found)
    return RuntimeParity(
        runtime=runner.runtime,
        provider=runner.provider,
        precision=runner.precision,
        images=len(images),
        stages=tuple(worst.values()),
    )


def compare_stage(
    runtime: str, exact: BoundedStage, traced: Mapping[str, np.ndarray]
) -> StageParity:
    """Compare one stage's output with its exact value.

    Raises:
        ParityError: it is missing, has another shape, or departs from its bound.
    """
    if exact.name not in traced:
        raise ParityError(f"{runtime}: stage {exact.name!r} is missing")
    value = traced[exact.name]
    if value.shape != exact.value.shape:
        raise ParityError(
            f"{runtime}: stage {exact.name!r} has shape {list(value.shape)}, "
            f"expected {list(exact.value.shape)}"
        )
    error = np.abs(value.astype(np.float64) - exact.value)
    within = error <= exact.bound  # False for NaN
    if not within.all():
        worst = tuple(int(i) for i in np.argwhere(~within)[0])
        raise ParityError(
            f"{runtime}: stage {exact.name!r} departs from the weights: element {list(worst)} is "
            f"{value[worst]!r}, exactly {exact.value[worst]:.9g}, "
            f"allowed difference {exact.bound[worst]:.3g}"
        )
    margin = np.divide(error, exact.bound, out=np.zeros_like(error), where=exact.bound > 0)
    return StageParity(
        stage=exact.name,
        max_error=float(error.max()),
        bound=float(exact.bound.max()),
        margin=float(margin.max()),
    )


def _check_same_logits(runner: Runner, traced: np.ndarray, predicted: np.ndarray) -> None:
    if traced.tobytes() != predicted.tobytes():
        raise ParityError(f"{runner.runtime}: the logits of a trace differ from those of predict")


def _worse(left: StageParity, right: StageParity) -> StageParity:
    return StageParity(
        stage=left.stage,
        max_error=max(left.max_error, right.max_error),
        bound=max(left.bound, right.bound),
        margin=max(left.margin, right.margin),
    )


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), CHUNK_IMAGES):
        yield images[start : start + CHUNK_IMAGES]
