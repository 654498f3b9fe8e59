"""Decodes a question of Attribute, or says everything that is wrong with it; encodes the answer."""

from collections.abc import Mapping, Sequence

import numpy as np

from export.architecture import Stage
from export.attribution.attribute import Method, Question
from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.codec import decode_baseline, decode_images, encode_into
from server.api.forward_v1.zero_copy import ImageRequest
from server.api.sizes import ATTRIBUTION_BYTES, STAGE_OVERHEAD_BYTES, check_response_size
from server.engine.attribution import AttributedRun
from server.engine.staging import pixels_of
from server.errors import InvalidArgumentError, Violation, quote
from server.limits import RequestLimits
from server.repository.current import ActiveModel

METHODS: Mapping[int, Method] = {
    pb.ATTRIBUTION_METHOD_UNSPECIFIED: "linear_region",
    pb.ATTRIBUTION_METHOD_LINEAR_REGION: "linear_region",
    pb.ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS: "integrated_gradients",
    pb.ATTRIBUTION_METHOD_SALIENCY: "saliency",
}
ADVICE = "send fewer images, or name no stage"


def plan_attribution(
    request: ImageRequest[pb.AttributeRequest], active: ActiveModel, limits: RequestLimits
) -> tuple[np.ndarray, Question]:
    """Return the images and what is asked about them.

    Raises:
        InvalidArgumentError: with everything that is wrong with the request.
    """
    message, stages = request.message, active.model.manifest.stages
    images = decode_images(request, active.decoder)
    violations = images if isinstance(images, list) else []
    if message.method not in METHODS:
        text = f"expected one of {', '.join(pb.AttributionMethod.keys())}, got {message.method}"
        violations.append(Violation("method", text))
    _check_classes(message, active.model.manifest.labels, violations)
    names = [stage.name for stage in stages]
    if message.stage and message.stage not in names:
        text = f"expected one of {', '.join(names)}, got {quote(message.stage)}"
        violations.append(Violation("stage", text))
    baseline = _baseline(message, active, violations)
    if isinstance(images, list):
        raise InvalidArgumentError(violations)
    needed = response_bytes(message, stages, len(images))
    check_response_size(needed, limits, "images", ADVICE, violations)
    if violations:
        raise InvalidArgumentError(violations)
    return images, Question(
        method=METHODS[message.method],
        target_class=message.target_class if message.HasField("target_class") else None,
        other_class=message.other_class if message.HasField("other_class") else None,
        stage=message.stage or None,
        baseline=baseline,
    )


def _check_classes(
    message: pb.AttributeRequest, labels: Sequence[str], violations: list[Violation]
) -> None:
    sent = {
        "target_class": message.target_class if message.HasField("target_class") else None,
        "other_class": message.other_class if message.HasField("other_class") else None,
    }
    for field, number in sent.items():
        if number is not None and not 0 <= number < len(labels):
            text = f"expected a class from 0 to {len(labels) - 1}, got {number}"
            violations.append(Violation(field, text))
    if sent["other_class"] is not None and sent["other_class"] == sent["target_class"]:
        text = f"expected another class than target_class, got {message.other_class} for both"
        violations.append(Violation("other_class", text))


def _baseline(
    message: pb.AttributeRequest, active: ActiveModel, violations: list[Violation]
) -> np.ndarray | None:
    """Return the baseline as float32 pixels [H, W]; None: the default, or it is not right."""
    if not message.HasField("baseline"):
        return None
    if METHODS.get(message.method, "integrated_gradients") != "integrated_gradients":
        text = "INTEGRATED_GRADIENTS alone has a baseline; leave it out, or ask for that method"
        violations.append(Violation("baseline", text))
    baseline = decode_baseline(message.baseline, active.decoder)
    if isinstance(baseline, list):
        violations.extend(baseline)
        return None
    return pixels_of(baseline)


def response_bytes(message: pb.AttributeRequest, stages: Sequence[Stage], images: int) -> int:
    """Return an upper limit of the bytes of the answer, from shapes alone."""
    units = sum(stage.size for stage in stages if stage.name == message.stage)
    image_bytes = (stages[0].size + units) * 4 + ATTRIBUTION_BYTES
    return 3 * STAGE_OVERHEAD_BYTES + images * image_bytes  # two tensors and the rest


def put_attributions(run: AttributedRun, into: pb.AttributeResponse) -> None:
    """Encode the attributions of a request's images into a message."""
    found = run.attributions
    into.run_seconds = run.seconds
    encode_into(into.contributions, found.contributions)
    if found.stage_contributions is not None:
        encode_into(into.stage_contributions, found.stage_contributions)
    columns = (
        found.target,
        found.score,
        found.bias,
        found.stage_bias,
        found.residual,
        found.residual_bound,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    add = into.attributions.add
    for target, score, bias, stage_bias, residual, bound in rows:
        add(
            target_class=target,
            score=score,
            bias=bias,
            stage_bias=stage_bias,
            residual=residual,
            residual_bound=bound,
        )
