"""Bytes made from valid messages by random changes, or of nothing at all."""

from collections.abc import Callable, Sequence
from random import Random

MAX_RANDOM_BYTES = 200
MAX_CHANGES = 4
HEAD_BYTES = 48  # tags, lengths, dtype and shape stand before the pixels
EDGES = (0x00, 0x01, 0x7F, 0x80, 0xFF)

Change = Callable[[Random, bytearray], None]


class Mutator:
    """Makes inputs from seeds; the same number gives the same inputs."""

    def __init__(self, number: int, seeds: Sequence[bytes]) -> None:
        self._random = Random(number)  # noqa: S311 (no secret)
        self._seeds = seeds

    def next(self) -> bytes:
        """Return one input: now and then a seed as it is, or bytes that never were a message."""
        random = self._random
        kind = random.random()
        if kind < 0.05:
            return random.choice(self._seeds)
        if kind < 0.15:
            return random.randbytes(random.randrange(MAX_RANDOM_BYTES))
        data = bytearray(random.choice(self._seeds))
        for _ in range(random.randint(1, MAX_CHANGES)):
            change = random.choice(CHANGES)
            change(random, data)
        if random.random() < 0.1:
            data += random.choice(self._seeds)  # protobuf merges messages that follow each other
        return bytes(data)


def _place(random: Random, data: bytearray) -> int:
    """Return a position, half of the time among the first bytes."""
    most = len(data) if random.random() < 0.5 else min(len(data), HEAD_BYTES)
    return random.randrange(most + 1)


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data) % len(data)] ^= 1 << random.randrange(8)


def _edge(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data) % len(data)] = random.choice(EDGES)


def _cut(random: Random, data: bytearray) -> None:
    del data[_place(random, data) :]


def _remove(random: Random, data: bytearray) -> None:
    start = _place(random, data)
    del data[start : start + random.randrange(1, 16)]


def _repeat(random: Random, data: bytearray) -> None:
    start = _place(random, data)
    data[start:start] = data[start : start + random.randrange(1, 64)]


def _insert(random: Random, data: bytearray) -> None:
    start = _place(random, data)
    data[start:start] = random.randbytes(random.randrange(1, 16))


def _long_varint(random: Random, data: bytearray) -> None:
    start = _place(random, data)
    data[start:start] = b"\xff" * random.randrange(1, 12)


CHANGES: Sequence[Change] = (_flip, _edge, _cut, _remove, _repeat, _insert, _long_varint)
