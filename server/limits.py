"""The limits of one request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RequestLimits:
    """What one request may ask for."""

    max_batch_images: int
    max_response_bytes: int
    max_comparisons: int = 1  # at a time, over all requests
