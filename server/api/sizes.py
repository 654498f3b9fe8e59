"""Bounds of what a response may hold, the same for every protocol."""

from server.errors import Violation
from server.limits import RequestLimits

MAX_VIOLATIONS = 100  # a client may name millions of stages; a status holds fewer still
# Bytes that a stage takes beside its values: names, shape, statistics, tags and lengths.
STAGE_OVERHEAD_BYTES = 256
TENSOR_OVERHEAD_BYTES = 64  # of a tensor: dtype, shape, tags and lengths
ENTRY_OVERHEAD_BYTES = 32  # the same for an image's top values
EPOCH_OVERHEAD_BYTES = 96  # of an epoch: seven figures, its number, tags and lengths
ATTRIBUTION_BYTES = 64  # an image's attribution beside its contributions: five doubles, a class


def check_response_size(
    needed: int, limits: RequestLimits, field: str, advice: str, violations: list[Violation]
) -> None:
    """Append a violation if a response would need more bytes than allowed."""
    if needed > limits.max_response_bytes:
        text = (
            f"the response needs up to {needed} bytes, allowed are "
            f"{limits.max_response_bytes}; {advice}"
        )
        violations.append(Violation(field, text))
