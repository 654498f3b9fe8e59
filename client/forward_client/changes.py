"""What an intervention may make of each value."""

from typing import NamedTuple


class Set(NamedTuple):
    """The value becomes a given one: one for each unit in their order, or one for all."""

    values: tuple[float, ...]


class Add(NamedTuple):
    """A number is added to the value."""

    number: float


class Scale(NamedTuple):
    """The value is multiplied by a number."""

    number: float


class Clamp(NamedTuple):
    """The value is brought within bounds; None is no bound."""

    min: float | None
    max: float | None


class FromImage(NamedTuple):
    """The value becomes that of the same unit of another image of the batch."""

    image: int


Change = Set | Add | Scale | Clamp | FromImage
