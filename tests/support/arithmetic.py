"""Floating-point arithmetic of any precision, simulated with exact fractions.

It takes no arithmetic from export/: it rounds as the formats are defined.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import get_args

import numpy as np

from export.architecture import Precision

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
        if self.flushes_subnormals and abs(value) < Fraction(1, 2**-SMALLEST_EXPONENT):
            return Fraction(0)
        exponent = self.last_exponent(value)
        numerator = value.numerator << max(0, -exponent)
        steps = Fraction(numerator, value.denominator << max(0, exponent))
        return times_power(int(steps) if self.truncates else round(steps), exponent)  # half to even

    def last_exponent(self, value: Fraction) -> int:
        """Return the e of 2**e, what one step of the last bit is worth in a number of this size."""
        exponent = SMALLEST_EXPONENT
        if value:
            size, denominator = abs(value.numerator), value.denominator
            exponent = size.bit_length() - denominator.bit_length()
            if size << max(0, -exponent) < denominator << max(0, exponent):
                exponent -= 1  # now 2**exponent <= |value| < 2**(exponent + 1)
        return max(exponent, SMALLEST_EXPONENT) - self.bits + 1


def times_power(steps: int, exponent: int) -> Fraction:
    """Return steps · 2**exponent."""
    return Fraction(steps << exponent) if exponent >= 0 else Fraction(steps, 1 << -exponent)


FLOAT32 = Format(24)


@dataclass(frozen=True)
class Device:
    """How factors, products and sums are rounded; None does not round."""

    factors: Format | None
    products: Format | None
    sums: Format | None
    block: int = 0  # of a tensor core: how many products it adds in one go, if it does

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
        if self.sums is None:
            return sum(terms, Fraction(0))
        if self.block:
            return self._sum_in_blocks(self.sums, terms, random)
        while len(terms) > 1:
            random.shuffle(terms)
            terms.append(self.sums.round(terms.pop() + terms.pop()))
        return terms[0]

    def _sum_in_blocks(self, sums: Format, terms: list[Fraction], random: Random) -> Fraction:
        """Add k terms and the sum so far at a time, each cut to the last place of the largest."""
        random.shuffle(terms)
        total = Fraction(0)
        for start in range(0, len(terms), self.block):
            together = [total, *terms[start : start + self.block]]
            last_place = times_power(1, sums.last_exponent(max(map(abs, together))))
            cut = [last_place * int(term / last_place) for term in together]
            total = sums.round(sum(cut, Fraction(0)))
        return total


def _rounding(form: Format | None) -> Callable[[Fraction], Fraction]:
    return form.round if form else lambda value: value


TRUNCATED, FLUSHING = Format(24, truncates=True), Format(24, flushes_subnormals=True)
DEVICES = {
    "float32": Device(None, FLOAT32, FLOAT32),
    "float32 fused": Device(None, None, FLOAT32),
    "tf32 rounded": Device(Format(11), None, TRUNCATED),
    "tf32 truncated": Device(Format(11, truncates=True), None, TRUNCATED),
    "tf32 tensor core": Device(Format(11, truncates=True), None, TRUNCATED, block=4),
    "tf32 flushing": Device(Format(11, flushes_subnormals=True), FLUSHING, FLUSHING),
    "bfloat16": Device(Format(8), None, TRUNCATED),
    "bfloat16 tensor core": Device(Format(8), None, TRUNCATED, block=2),
    "bfloat16 flushing": Device(Format(8, flushes_subnormals=True), FLUSHING, FLUSHING),
}
EXACT = Device(None, None, None)


def precision_of(device: str) -> Precision:
    """Return the precision whose bound a device must keep: its name begins with that."""
    return next(precision for precision in get_args(Precision) if device.startswith(precision))


def fractions(array: np.ndarray) -> list[Fraction]:
    return [Fraction(float(value)) for value in array.ravel()]
