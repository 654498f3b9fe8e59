"""Changes of a stage's output that a caller asks `ForwardClient.trace` for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from forward.v1 import forward_pb2 as pb
from forward_client.changes import Add, Change, Clamp, FromImage, Scale, Set
from forward_client.intervention_text import parsed, text_of

LARGEST = float(np.finfo(np.float32).max)
MAX_POSITION = 2**31 - 1  # an int32 of the contract

Positions = Iterable[int] | np.ndarray  # of units or images
Numbers = float | Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Intervention:
    """A change of a stage's output; everything after the stage is computed from it.

    It is made by one of the methods, for units of the stage and images of the batch:

        Intervention.zero("relu", [3, 17])                # two units are off
        Intervention.scale("linear1", by=0.5)             # all values are half as large
        Intervention.patch("relu", image=1, images=[0])   # image 0 gets the values of image 1

    or from the text that `forward-client trace --set` takes: `Intervention.parse("relu[3,17]=0")`.
    `str()` gives that text. What no server could take raises ValueError at once.

    Attributes:
        stage: name of the stage, for example "relu"; not the last one.
        change: what becomes of each value: Set, Add, Scale, Clamp or FromImage of
            `forward_client.changes`.
        units: positions in an image's own output, flattened row by row; None for all.
        images: positions in the batch, from 0; None for all.
    """

    stage: str
    change: Change
    units: tuple[int, ...] | None = None
    images: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the model."""
        _check_stage(self.stage)
        units = _positions("units", self.units)
        object.__setattr__(self, "units", units)
        object.__setattr__(self, "images", _positions("images", self.images))
        object.__setattr__(self, "change", _checked(self.change, units))

    @classmethod
    def zero(
        cls, stage: str, units: Positions | None = None, *, images: Positions | None = None
    ) -> Self:
        """Return the change to 0."""
        return cls.set(stage, units, to=0.0, images=images)

    @classmethod
    def set(
        cls,
        stage: str,
        units: Positions | None = None,
        *,
        to: Numbers,
        images: Positions | None = None,
    ) -> Self:
        """Return the change to one value for all units, or to one for each in their order."""
        return cls._of(stage, Set(_numbers(to)), units, images)

    @classmethod
    def add(
        cls,
        stage: str,
        units: Positions | None = None,
        *,
        number: float,
        images: Positions | None = None,
    ) -> Self:
        """Return the change that adds a number."""
        return cls._of(stage, Add(number), units, images)

    @classmethod
    def scale(
        cls,
        stage: str,
        units: Positions | None = None,
        *,
        by: float,
        images: Positions | None = None,
    ) -> Self:
        """Return the change that multiplies by a number."""
        return cls._of(stage, Scale(by), units, images)

    @classmethod
    def clamp(
        cls,
        stage: str,
        units: Positions | None = None,
        *,
        min: float | None = None,  # noqa: A002 (as the fields of Clamp)
        max: float | None = None,  # noqa: A002 (as the fields of Clamp)
        images: Positions | None = None,
    ) -> Self:
        """Return the change that brings values within one bound or two."""
        return cls._of(stage, Clamp(min, max), units, images)

    @classmethod
    def patch(
        cls,
        stage: str,
        units: Positions | None = None,
        *,
        image: int,
        images: Positions | None = None,
    ) -> Self:
        """Return the change to the values of an image of the batch (activation patching)."""
        return cls._of(stage, FromImage(image), units, images)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the change that a text says: `relu[3,17]=0`, `linear1*=0.5`, `relu@0=@1`.

        Raises:
            ValueError: the text is no change; the error has the place.
        """
        return cls(*parsed(text))

    @classmethod
    def _of(
        cls, stage: str, change: Change, units: Positions | None, images: Positions | None
    ) -> Self:
        return cls(stage, change, _positions("units", units), _positions("images", images))

    def __str__(self) -> str:
        """Return the text that `parse` takes."""
        return text_of(self.stage, self.change, self.units, self.images)

    def message(self) -> pb.Intervention:
        """Return the message that is sent."""
        message = pb.Intervention(
            stage=self.stage, units=self.units or (), images=self.images or ()
        )
        match self.change:
            case Set((number,)) if number == 0 and not np.signbit(number):
                message.zero = True
            case Set(values):
                message.set.values.extend(values)
            case Add(number):
                message.add = number
            case Scale(number):
                message.scale = number
            case Clamp(low, high):
                message.clamp.CopyFrom(pb.Clamp(min=low, max=high))
            case FromImage(image):
                message.from_image = image
        return message


def _check_stage(given: object) -> None:
    if not isinstance(given, str) or not given:
        raise ValueError(f"expected the name of a stage, got {given!r}")


def _positions(name: str, given: Positions | None) -> tuple[int, ...] | None:
    """Return positions as a tuple, None for all."""
    if given is None:
        return None
    is_text = isinstance(given, str | bytes)
    if is_text or not isinstance(given, Iterable):
        raise ValueError(f"expected positions as {name}, for example [3, 17], got {given!r}")
    positions = tuple(_position(name, each) for each in given)
    if not positions:
        raise ValueError(f"expected at least one position as {name}, or None for all, got none")
    if len(set(positions)) < len(positions):
        twice = next(each for each in positions if positions.count(each) > 1)
        raise ValueError(f"expected each position of {name} once, got {twice} twice")
    return positions


def _position(name: str, given: object) -> int:
    position = whole_number(given)
    if position is None:
        raise ValueError(f"expected whole numbers as {name}, got {given!r}")
    if not 0 <= position <= MAX_POSITION:
        raise ValueError(f"expected {name} from 0 to {MAX_POSITION}, got {given}")
    return position


def whole_number(given: object) -> int | None:
    """Return a whole number as Python's int; None for anything else, a bool (of a mask) too."""
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return int(given)
    return None


def _numbers(given: Numbers) -> tuple[float, ...]:
    """Return one number or several as a tuple."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return (_number("a value", given),)
    return tuple(_number("values", each) for each in given)


def _number(name: str, given: object) -> float:
    """Return a number that stays finite as float32."""
    number = given if isinstance(given, float | np.floating) else whole_number(given)
    if number is None:
        raise ValueError(f"expected a number as {name}, got {given!r}")
    if not -LARGEST <= number <= LARGEST:  # nor NaN
        raise ValueError(
            f"expected {name} from {-LARGEST:g} to {LARGEST:g}, as float32 has them, got {given}"
        )
    return float(number)


def _checked(change: Change, units: tuple[int, ...] | None) -> Change:
    """Return a change with plain numbers."""
    match change:
        case Set(values):
            numbers = _numbers(values)
            if not numbers:
                raise ValueError("expected one value, or one for each unit, got none")
            if units is not None and len(numbers) not in {1, len(units)}:
                several = f" or {len(units)}, one for each unit" if len(units) > 1 else ""
                raise ValueError(f"expected 1 value{several}, got {len(numbers)}")
            return Set(numbers)
        case Add(number):
            return Add(_number("the number to add", number))
        case Scale(number):
            return Scale(_number("the number to scale by", number))
        case Clamp(low, high):
            return _checked_clamp(low, high)
        case FromImage(image):
            return FromImage(_position("image", image))
    raise ValueError(f"expected a Set, Add, Scale, Clamp or FromImage, got {change!r}")


def _checked_clamp(low: float | None, high: float | None) -> Clamp:
    low = None if low is None else _number("min", low)
    high = None if high is None else _number("max", high)
    if low is None and high is None:
        raise ValueError("expected min, max or both, got neither")
    if low is not None and high is not None and low > high:
        raise ValueError(f"expected min up to max, got {low:g} and {high:g}")
    return Clamp(low, high)
