"""The extension `forward_native`: whether it is there, and fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeAlias, TypedDict

from server.engine.admission import ImageCounter
from server.errors import StartError

CONTRACT = 3  # of what this package calls; the extension has the same number
MODULE = "forward_native"
REMEDY = "install it with `make native`, or take --transport python"

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


Observed: TypeAlias = tuple[Sequence[int], float]  # the counts of buckets, and the sum


Named: TypeAlias = Sequence[tuple[str, int]]  # names with their counts


class LaneTotals(TypedDict):
    """What the lane has counted since the start."""

    images: int
    run_requests: Observed
    run_images: Observed
    run_seconds: Observed
    sized_seconds: Sequence[float]  # of runs, by the buckets of their images
    queue_seconds: Observed
    encode_seconds: Observed
    queue_oldest_seconds: float  # of now
    calls: Sequence[tuple[str, Named, Observed]]  # path, codes, times


class ConnectionTotals(TypedDict):
    """The connections since the start."""

    open: int  # now
    opened: int
    closed: Named
    refused: Named


class Totals(TypedDict):
    """Everything that was counted since the start."""

    lane: LaneTotals
    ended: Sequence[tuple[str, int, int]]  # before any service had them: path, code, how many
    calls_in_flight: int  # now, Python's as well
    observations_dropped: int
    connections: ConnectionTotals


class Extension(Protocol):
    """A server of the extension; native/src/python.rs has what each method does."""

    event_fd: int

    def adopt(self, fd: int, is_unix: bool) -> None: ...
    def set_tls(self, chain: bytes, key: bytes, client_ca: bytes | None) -> None: ...
    def start(self) -> None: ...
    def take(self) -> list[tuple[Any, ...]]: ...
    def respond(self, call: int, message: bytes) -> None: ...
    def send(self, call: int, message: bytes) -> None: ...
    def taken(self, call: int) -> None: ...
    def finish(self, call: int, code: int, text: str, trailing: Metadata) -> None: ...
    def flush(self) -> None: ...
    def set_gate(self, closed: bool) -> None: ...
    def set_tokens(self, tokens: Sequence[str]) -> None: ...
    def set_lane(self, session: object | None, model: Mapping[str, object] | None) -> None: ...
    def set_samples(self, are_wanted: bool) -> None: ...
    def totals(self) -> Totals: ...
    def beats(self) -> int: ...
    def stop(self, grace_seconds: float) -> None: ...
    def panic(self) -> None: ...
    def sleep(self, seconds: float) -> None: ...
    def join(self) -> None: ...


@dataclass(frozen=True)
class NativeModule:
    """The extension's module, and the images that wait or run, which it counts too."""

    module: Any  # without types
    images: ImageCounter


def open_extension(max_queue_images: int) -> NativeModule:
    """Return the extension.

    Raises:
        StartError: it is not installed, or is of another release; the text says what to do.
    """
    module = load_extension()
    return NativeModule(module, module.Admission(max_queue_images))


def load_extension() -> Any:  # noqa: ANN401 (a module without types)
    """Return the extension's module.

    Raises:
        StartError: as above.
    """
    try:
        module = import_module(MODULE)
    except ImportError as error:
        raise StartError(f"the native transport is not installed ({error}); {REMEDY}") from error
    found = getattr(module, "CONTRACT", None)
    if found != CONTRACT:
        raise StartError(
            f"the installed native transport has contract {found}, and this server needs "
            f"{CONTRACT}; {REMEDY}"
        )
    return module
