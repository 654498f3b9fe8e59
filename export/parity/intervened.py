"""Interventions of a runtime beside the oracle: random changes of every stage."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from export.architecture import Precision, Stage
from export.bundle.reading import Bundle
from export.errors import ParityError
from export.parity.bounds import Changed, Reference, bounded
from export.parity.tally import StageTally
from export.runtimes.changes import Changes, StageChanges
from export.runtimes.numpy import NumpyRunner
from export.runtimes.runner import InterveningRunner

PROBED_SHARE = 0.25  # of the elements of a stage
NUMBERS = 2.0  # changes scale, shift and bound by numbers up to this


class Probe(NamedTuple):
    """Changes of images, and what the oracle makes of them."""

    changes: Changes
    reference: Reference


def probes_of(
    stages: Sequence[Stage],
    weights: Mapping[str, np.ndarray],
    images: np.ndarray,
    precision: Precision,
) -> list[Probe]:
    """Return what every runtime of a precision is asked, for images [N, H, W]."""
    oracle = NumpyRunner(stages, weights)
    probes = []
    for changes in probe_changes(stages, len(images)):
        values, before = oracle.trace_both(images, changes)
        reference = bounded(stages, weights, values, precision, Changed(changes, before))
        probes.append(Probe(changes, reference))
    return probes


def check_interventions(
    bundle: Bundle, probes: Sequence[Probe], runner: InterveningRunner, images: np.ndarray
) -> None:
    """Check that a runtime changes what it is told to, and without changes not a bit.

    Raises:
        ParityError: it does not, and the text names the stage, or it can't run.
    """
    try:
        _check(bundle, probes, runner, images)
    except ParityError:
        raise
    except Exception as error:  # whatever a runtime raises, for example on a GPU that is full
        raise ParityError(
            f"{bundle.path}: {runner.runtime} can't run with interventions: {error}"
        ) from error


def _check(
    bundle: Bundle, probes: Sequence[Probe], runner: InterveningRunner, images: np.ndarray
) -> None:
    stages = bundle.manifest.stages
    names = [stage.name for stage in stages]
    plain, same = runner.trace(images, names), runner.intervene(images, names, {})
    for name in names:
        if plain[name].tobytes() != same[name].tobytes():
            text = f"stage {name!r} has other bits without changes than in a trace"
            raise _error(bundle, runner, text)
    for probe in probes:
        divergence = _divergence(stages, runner, images, probe)
        if divergence is not None:
            raise _error(bundle, runner, divergence)


def probe_changes(stages: Sequence[Stage], images: int) -> list[Changes]:
    """Return changes of each stage alone, and of all together; the same ones every time."""
    generator = np.random.default_rng(0)
    alone = {
        stage.name: _random_changes(generator, stage.size, images)
        for stage in stages
        if stage.operation != "Output"
    }
    return [*({name: changes} for name, changes in alone.items()), alone]


def _random_changes(generator: np.random.Generator, size: int, images: int) -> StageChanges:
    count = max(1, round(PROBED_SHARE * size * images))
    at = generator.choice(size * images, count, replace=False)
    source = generator.integers(images, size=count) * size + at % size  # the unit of any image
    scale, shift, one, other = generator.uniform(-NUMBERS, NUMBERS, (4, count)).astype(np.float32)
    low, high = np.minimum(one, other), np.maximum(one, other)
    low[::3], high[1::3] = -np.inf, np.inf
    return StageChanges(at, source, scale, shift, low, high)


def _divergence(
    stages: Sequence[Stage], runner: InterveningRunner, images: np.ndarray, probe: Probe
) -> str | None:
    """Return at which stage, and how, a run with changes diverges; None if it does not."""
    reference = probe.reference
    outputs = runner.intervene(images, [stage.name for stage in stages], probe.changes)
    for stage in stages:
        exact, bound = reference.values[stage.name], reference.bounds[stage.name]
        if text := StageTally(stage).add(outputs[stage.name], exact, bound, 0):
            return f"with interventions, stage {stage.name!r} {text}"
    return None


def _error(bundle: Bundle, runner: InterveningRunner, text: str) -> ParityError:
    return ParityError(
        f"{bundle.path}: {runner.runtime} on {runner.provider} does not compute this model: "
        f"{text}; restore the bundle, train again, or serve with another --runtime"
    )
