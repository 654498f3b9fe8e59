"""The forward pass of one image on a simulated device, with exact fractions."""

from collections.abc import Sequence
from fractions import Fraction
from random import Random

import numpy as np

from export.architecture import Stage
from export.runtimes.changes import Changes, StageChanges
from tests.support.arithmetic import Device, fractions

Weights = dict[str, np.ndarray]


def simulate(  # noqa: PLR0913, PLR0917 (a device, a network, an image, an order and changes)
    device: Device,
    stages: Sequence[Stage],
    weights: Weights,
    image: np.ndarray,
    random: Random,
    changes: Changes | None = None,
) -> dict[str, list[Fraction]]:
    """Return every stage of one image, with changes, on a simulated device."""
    values = fractions(image)
    outputs = {}
    for stage in stages:
        if stage.operation == "Linear":
            rows = [fractions(row) for row in weights[f"{stage.name}.weight"]]
            values = device.linear(rows, fractions(weights[f"{stage.name}.bias"]), values, random)
        elif stage.operation == "ReLU":
            values = [max(value, Fraction(0)) for value in values]
        if changes and stage.name in changes:
            values = change(device, values, changes[stage.name])
        outputs[stage.name] = values
    return outputs


def change(device: Device, values: list[Fraction], changes: StageChanges) -> list[Fraction]:
    """Return values of one image after their changes, on a simulated device."""
    changed = list(values)
    for k, (at, source) in enumerate(zip(changes.at, changes.source, strict=True)):
        scale, shift = fractions(changes.scale[k]), fractions(changes.shift[k])
        product = scale[0] * values[source]
        if device.products:
            product = device.products.round(product)
        moved = product + shift[0]
        if device.sums:
            moved = device.sums.round(moved)
        if np.isfinite(changes.low[k]):
            moved = max(moved, Fraction(float(changes.low[k])))
        if np.isfinite(changes.high[k]):
            moved = min(moved, Fraction(float(changes.high[k])))
        changed[at] = moved
    return changed
