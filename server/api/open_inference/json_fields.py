"""JSON of a client: parsed strictly, and read field by field with every violation."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Never, TypeGuard

from server.errors import InvalidArgumentError, Violation, quote

# Each costs a call of `_Objects.make`. A request has one for each input, each output, and the
# parameters of each.
MAX_OBJECTS = 1000
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a truth value",
    float: "a number with a fraction",
    int: "a whole number",
    type(None): "null",
}


class _Objects:
    """Makes the objects of one text."""

    def __init__(self) -> None:
        self._count = 0

    def make(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return an object of its names and values."""
        self._count += 1
        if self._count > MAX_OBJECTS:
            raise _invalid(f"expected at most {MAX_OBJECTS} objects in the JSON, got more")
        made = dict(pairs)
        if len(made) < len(pairs):
            (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
            raise _invalid(
                f"expected JSON whose names differ, got {quote(twice)} twice in an object"
            )
        return made


def parse(text: bytes) -> dict[str, Any]:
    """Return the object that a text in UTF-8 is.

    Raises:
        InvalidArgumentError: it is none, or costs more than a request may.
    """
    try:
        parsed = json.loads(
            text.decode(), object_pairs_hook=_Objects().make, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        reason = f"no UTF-8 at byte {error.start}"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:  # Python's own, of an integer of thousands of digits
        reason = "a number has too many digits"
    else:
        if isinstance(parsed, dict):
            return parsed
        reason = f"got {name_of(type(parsed))}"
    raise _invalid(f"expected a JSON object: {reason}")


def _refuse_constant(name: str) -> Never:
    raise _invalid(f"expected a JSON object with finite numbers, got {name}")


def _invalid(text: str) -> InvalidArgumentError:
    return InvalidArgumentError([Violation("request", text)])


def name_of(kind: type) -> str:
    """Return what a value of that type is in JSON, for an error."""
    return NAMES[kind]


class Fields:
    """An object's fields, read by name; one that is not as expected is a violation.

    Args:
        values: the object.
        where: its path; empty: the whole text.
        found: what is wrong, the same list for all of a text.
    """

    def __init__(
        self, values: dict[str, Any], where: str = "", found: list[Violation] | None = None
    ) -> None:
        self._values = values
        self._where = where
        self.found: list[Violation] = [] if found is None else found

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def path(self, name: str = "") -> str:
        """Return the path of a field, or of the object itself."""
        return f"{self._where}.{name}".strip(".")

    def value(self, name: str) -> object:
        """Return a field, whatever it is."""
        return self._values[name]

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; without a default it is required."""
        value = self._values.get(name, default)
        if isinstance(value, str) and _is_unicode(value):
            return value
        self._refuse(name, "a text")
        return ""

    def flag(self, name: str) -> bool:
        """Return a truth value; none is false."""
        value = self._values.get(name, False)
        if isinstance(value, bool):
            return value
        self._refuse(name, "true or false")
        return False

    def whole_number(self, name: str, least: int = INT64_MIN) -> int:
        """Return a whole number, which is required."""
        value = self._values.get(name)
        if _is_int64(value) and value >= least:
            return value
        self._refuse(
            name, f"a whole number of {least} or more" if least > INT64_MIN else "a whole number"
        )
        return 0

    def size(self, name: str) -> int:
        """Return a whole number of 0 or more, which is required."""
        return self.whole_number(name, 0)

    def sizes(self, name: str) -> list[int]:
        """Return a list of whole numbers, which is required."""
        value = self._values.get(name)
        if isinstance(value, list) and all(map(_is_int64, value)):
            return value
        self._refuse(name, "a list of whole numbers")
        return []

    def object(self, name: str) -> "Fields":
        """Return the fields of an object; of none if there is none."""
        value = self._values.get(name, {})
        if not isinstance(value, dict):
            self._refuse(name, "an object")
            value = {}
        return Fields(value, self.path(name), self.found)

    def objects(self, name: str, *, is_required: bool = False) -> "Iterator[Fields]":
        """Yield the fields of each object of a list."""
        value = self._values.get(name, None if is_required else [])
        if not isinstance(value, list):
            self._refuse(name, "a list of objects")
            return
        for index, each in enumerate(value):
            path = f"{self.path(name)}[{index}]"
            if isinstance(each, dict):
                yield Fields(each, path, self.found)
            else:
                self.found.append(Violation(path, f"expected an object, got {name_of(type(each))}"))
                return

    def _refuse(self, name: str, expected: str) -> None:
        got = _shown(self._values[name]) if name in self._values else "nothing"
        self.found.append(Violation(self.path(name), f"expected {expected}, got {got}"))


def _is_int64(value: object) -> TypeGuard[int]:
    return type(value) is int and INT64_MIN <= value <= INT64_MAX


def _is_unicode(text: str) -> bool:
    """Tell if a text has no half of a surrogate pair, which JSON can write and UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """Return a value for an error: itself, if it is short."""
    if isinstance(value, str):
        return quote(value)
    return str(value) if type(value) in {int, float} else name_of(type(value))
