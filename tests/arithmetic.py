"""Floating-point arithmetic of any precision, simulated with exact fractions.

It knows nothing of export/: it rounds as the formats are defined.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random

import numpy as np

Rows = Sequence[Sequence[Fraction]]
SMALLEST_EXPONENT = -126  # of a normal number; float32, TF32 and bfloat16 share it


@dataclass(frozen=True)
class Format:
    """A binary format: significant bits, and what is done with what does not fit."""

    bits: int
    truncates: bool = False
    flushes_subnormals: bool = False

    def round(self, value: Fraction) -> Fraction:
        """Return the number of this format that the value becomes."""
        if value == 0:
            return value
        exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
        if abs(value) < Fraction(2) ** exponent:
            exponent -= 1  # now 2**exponent <= |value| < 2**(exponent + 1)
        if self.flushes_subnormals and exponent < SMALLEST_EXPONENT:
            return Fraction(0)
        quantum = Fraction(2) ** (max(exponent, SMALLEST_EXPONENT) - self.bits + 1)
        steps = value / quantum
        return quantum * (int(steps) if self.truncates else round(steps))  # half to even


FLOAT32 = Format(24)


@dataclass(frozen=True)
class Device:
    """How factors, products and sums are rounded; None does not round."""

    factors: Format | None
    products: Format | None
    sums: Format

    def linear(
        self, weight: Rows, bias: Sequence[Fraction], inputs: Sequence[Fraction], random: Random
    ) -> list[Fraction]:
        """Return W·x + b, every output summed in a random order of its own."""
        factors = _rounding(self.factors)
        outputs = []
        for row, start in zip(weight, bias, strict=True):
            products = [factors(w) * factors(x) for w, x in zip(row, inputs, strict=True)]
            outputs.append(self._sum([start, *map(_rounding(self.products), products)], random))
        return outputs

    def _sum(self, terms: list[Fraction], random: Random) -> Fraction:
        """Add the terms pair by pair, any two of what is there: every tree can come."""
        while len(terms) > 1:
            random.shuffle(terms)
            terms.append(self.sums.round(terms.pop() + terms.pop()))
        return terms[0]


def _rounding(form: Format | None) -> Callable[[Fraction], Fraction]:
    return form.round if form else lambda value: value


TRUNCATED, FLUSHING = Format(24, truncates=True), Format(24, flushes_subnormals=True)
DEVICES = {
    "float32": Device(None, FLOAT32, FLOAT32),
    "float32 fused": Device(None, None, FLOAT32),
    "tf32 rounded": Device(Format(11), None, TRUNCATED),
    "tf32 truncated": Device(Format(11, truncates=True), None, TRUNCATED),
    "tf32 flushing": Device(Format(11, flushes_subnormals=True), FLUSHING, FLUSHING),
    "bfloat16": Device(Format(8), None, TRUNCATED),
    "bfloat16 flushing": Device(Format(8, flushes_subnormals=True), FLUSHING, FLUSHING),
}
EXACT = Device(None, None, Format(100_000))


def fractions(array: np.ndarray) -> list[Fraction]:
    return [Fraction(float(value)) for value in array.ravel()]
