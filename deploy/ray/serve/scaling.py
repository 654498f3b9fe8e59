"""How many replicas are wanted: by the images that wait or run in all of them."""

from math import ceil
from typing import Any

QUEUE_IMAGES = "queue_images"  # the name of the figure that replicas record


def wanted_replicas(context: Any) -> tuple[int, dict[str, Any]]:  # noqa: ANN401 (Ray's context)
    """Return how many replicas bring the queue of each to its target; Ray keeps to the bounds.

    Ray waits with a change for the delays of its autoscaling configuration. The target is the
    one of requests there, as images. While no replica has recorded anything, nothing changes.
    """
    recorded = (context.aggregated_metrics or {}).get(QUEUE_IMAGES, {})
    if not recorded:
        return context.target_num_replicas, {}
    images = sum(recorded.values())
    return max(1, ceil(images / context.config.target_ongoing_requests)), {}
