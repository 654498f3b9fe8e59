"""The text of an intervention, as `forward-client trace --set` takes it.

    STAGE[UNITS]@IMAGES=VALUE            one value for all, VALUE,VALUE,... one for each unit
    STAGE[UNITS]@IMAGES+=NUMBER          add; -= subtracts
    STAGE[UNITS]@IMAGES*=NUMBER          scale
    STAGE[UNITS]@IMAGES=MIN..MAX         clamp; either may be missing
    STAGE[UNITS]@IMAGES=@IMAGE           the values of another image of the batch

`[UNITS]` and `@IMAGES` may be missing, for all; they are positions from 0, separated by commas;
`4..9` is 4 and all up to 9. There are no spaces.
"""

import re
from collections.abc import Iterator, Sequence

from forward_client.changes import Add, Change, Clamp, FromImage, Scale, Set

STAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
POSITION = re.compile(r"[0-9]{1,10}")  # of an int32; Intervention checks its range
NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
OPERATIONS = ("+=", "-=", "*=", "=")
MAX_POSITIONS = 1 << 20
MIN_RANGE = 3  # as many positions in a row are printed as a range

Positions = tuple[int, ...] | None


def parsed(text: str) -> tuple[str, Change, Positions, Positions]:
    """Return stage, change, units and images of a text; None for all.

    Raises:
        ValueError: the text is no change.
    """
    return _Reader(text).change()


class _Reader:
    """Reads a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def change(self) -> tuple[str, Change, Positions, Positions]:
        stage = self._match(STAGE, "the name of a stage")
        units = images = None
        if self._take("["):
            units = self._positions("a unit")
            if not self._take("]"):
                raise self._error("',', '..' or ']'")
        if self._take("@"):
            images = self._positions("an image")
        operation = next(filter(self._take, OPERATIONS), None)
        if operation is None:
            raise self._error("=, +=, -= or *=")
        change = self._assigned() if operation == "=" else self._computed(operation)
        if self._at < len(self._text):
            raise self._error("the end")
        return stage, change, units, images

    def _computed(self, operation: str) -> Change:
        number = self._number()
        if operation == "*=":
            return Scale(number)
        return Add(-number if operation == "-=" else number)

    def _assigned(self) -> Change:
        if self._take("@"):
            return FromImage(int(self._match(POSITION, "an image, from 0,")))
        if self._take(".."):
            return Clamp(None, self._number())
        first = self._number("a number, '..' or @ and an image")
        if self._take(".."):
            is_bounded = self._at < len(self._text)
            return Clamp(first, self._number() if is_bounded else None)
        values = [first]
        while self._take(","):
            values.append(self._number())
        return Set(tuple(values))

    def _positions(self, what: str) -> tuple[int, ...]:
        positions: list[int] = []
        while True:
            first = last = int(self._match(POSITION, f"{what}, from 0,"))
            if self._take(".."):
                start = self._at
                last = int(self._match(POSITION, f"{what}, from 0,"))
                if not first <= last < first + MAX_POSITIONS:
                    self._at = start
                    most = f" and up to {MAX_POSITIONS} positions" if last > first else ""
                    raise self._error(f"{what} from {first} on{most}")
            positions += range(first, last + 1)
            if not self._take(","):
                return tuple(positions)

    def _number(self, what: str = "a number") -> float:
        return float(self._match(NUMBER, what))

    def _match(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._error(what)
        self._at = found.end()
        return found[0]

    def _take(self, word: str) -> bool:
        """Tell whether a word comes next; if so, go past it."""
        is_next = self._text.startswith(word, self._at)
        self._at += len(word) * is_next
        return is_next

    def _error(self, expected: str) -> ValueError:
        rest = self._text[self._at :]
        found = repr(rest) if rest else "the end"
        return ValueError(f"expected {expected} at character {self._at + 1}, got {found}")


def text_of(stage: str, change: Change, units: Positions, images: Positions) -> str:
    """Return the text that `parsed` reads."""
    where = stage
    where += f"[{_ranges(units)}]" if units else ""
    where += f"@{_ranges(images)}" if images else ""
    match change:
        case Set(values):
            return f"{where}={','.join(map(_plain, values))}"
        case Add(number):
            return f"{where}+={_plain(number)}"
        case Scale(number):
            return f"{where}*={_plain(number)}"
        case Clamp(low, high):
            return f"{where}={_plain(low)}..{_plain(high)}"
        case FromImage(image):
            return f"{where}=@{image}"


def _plain(number: float | None) -> str:
    """Return the shortest text of a number that reads back to the bit."""
    return "" if number is None else repr(number).removesuffix(".0")


def _ranges(positions: Sequence[int]) -> str:
    return ",".join(_parts(positions))


def _parts(positions: Sequence[int]) -> Iterator[str]:
    """Yield each position, and those in a row as a range."""
    start = 0
    while start < len(positions):
        end = start + 1
        while end < len(positions) and positions[end] == positions[end - 1] + 1:
            end += 1
        if end - start >= MIN_RANGE:
            yield f"{positions[start]}..{positions[end - 1]}"
        else:
            yield from map(str, positions[start:end])
        start = end
