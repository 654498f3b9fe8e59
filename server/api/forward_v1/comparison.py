"""Decodes what Compare is asked, or says everything that is wrong with it; encodes the answer."""

from collections.abc import Sequence

import numpy as np

from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.codec import decode_images, identity_message
from server.api.forward_v1.zero_copy import ImageRequest
from server.api.sizes import MAX_VIOLATIONS
from server.engine.compared import PROGRAMS, Compared, has_torch
from server.errors import InvalidArgumentError, Violation, quote
from server.repository.current import ActiveModel


def plan_comparison(
    request: ImageRequest[pb.CompareRequest], active: ActiveModel
) -> tuple[np.ndarray, Sequence[str]]:
    """Return the images and the names of the runtimes.

    Raises:
        InvalidArgumentError: with everything that is wrong with the request.
    """
    images = decode_images(request, active.decoder)
    violations = images if isinstance(images, list) else []
    available = active.model.compared.available
    named = request.message.runtimes
    seen: set[str] = set()
    for index, name in enumerate(named):
        if len(violations) >= MAX_VIOLATIONS:
            break
        path = f"runtimes[{index}]"
        if name not in available:
            text = f"this server has {', '.join(available)}, got {quote(name)}"
            if name in PROGRAMS and has_torch():
                text += "; it opens programs only if it was started with --compare-programs"
            violations.append(Violation(path, text))
        elif name in seen:
            violations.append(Violation(path, f"{quote(name)} is named twice"))
        seen.add(name)
    if isinstance(images, list) or violations:
        raise InvalidArgumentError(violations)
    return images, list(named) or available


def comparison_message(active: ActiveModel, compared: Compared) -> pb.CompareResponse:
    """Return the response."""
    return pb.CompareResponse(
        model=identity_message(active.identity),
        runtimes=[
            pb.RuntimeComparison(
                runtime=one.runtime,
                stages=[
                    pb.StageComparison(
                        stage=stage.stage,
                        max_error=stage.max_error,
                        mean_error=stage.mean_error,
                        max_bound_share=stage.margin,
                        max_ulps=stage.max_ulps,
                    )
                    for stage in one.stages
                ],
                diverges_at=one.diverges_at or "",
                different_decisions=one.different_decisions,
            )
            for one in compared.runtimes
        ],
        certified_share=compared.certified_share,
    )
