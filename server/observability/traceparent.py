"""The `traceparent` header of W3C Trace Context: which trace a call belongs to."""

import re
from typing import NamedTuple

HEADER = "traceparent"
# Version, trace, the caller's span, flags; a later version may go on after a dash.
FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
THIS_VERSION, NO_VERSION = "00", "ff"
NO_TRACE, NO_SPAN = "0" * 32, "0" * 16
SAMPLED = 0x01  # the flag


class TraceParent(NamedTuple):
    """A span of a trace, by its ids in lower-case hexadecimal digits."""

    trace_id: str  # 32 digits
    span_id: str  # 16 digits
    is_sampled: bool  # whether whoever made the span records it

    def __str__(self) -> str:
        """Return it as the header has it."""
        return f"{THIS_VERSION}-{self.trace_id}-{self.span_id}-{self.is_sampled:02x}"


def parse_traceparent(text: str) -> TraceParent | None:
    """Return what a header says; None if it is not as the recommendation has it.

    Of a version that is later than this one, that is what this one has in common with it.
    """
    if (found := FORM.fullmatch(text)) is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    is_known = version != NO_VERSION and not (version == THIS_VERSION and rest)
    if not is_known or trace_id == NO_TRACE or span_id == NO_SPAN:
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & SAMPLED))
