"""The elements of a tensor in JSON: numbers in a list, flat or nested, in row-major order."""

from itertools import chain
from typing import Any

import numpy as np

from server.api.open_inference.json_fields import name_of
from server.errors import Violation


def element_bytes(data: object, dtype: np.dtype[Any], path: str, found: list[Violation]) -> bytes:
    """Return numbers as little-endian bytes; append to `found` if they are none of that type.

    A float too large for float32 becomes infinite, which the service refuses.
    """
    expected = "whole numbers from 0 to 255" if dtype.kind == "u" else "numbers"
    flat = _flat(data)
    if flat is None:
        text = f"expected {expected} in a list, flat or nested alike, got"
        got = "a list of lists and others" if isinstance(data, list) else name_of(type(data))
        found.append(Violation(path, f"{text} {got}"))
        return b""
    kinds = set(map(type, flat)) - ({int} if dtype.kind == "u" else {int, float})
    if kinds:
        others = " and ".join(sorted(name_of(kind) for kind in kinds))
        found.append(Violation(path, f"expected {expected}, got also {others}"))
        return b""
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype).tobytes()
    except OverflowError:
        found.append(Violation(path, f"expected {expected}, got one that is too large or negative"))
        return b""


def _flat(data: object) -> list[Any] | None:
    """Return the elements of a list whose elements are all lists, and theirs, or none are."""
    if not isinstance(data, list):
        return None
    while data and isinstance(data[0], list):
        if set(map(type, data)) != {list}:
            return None
        data = list(chain.from_iterable(data))
    return data
