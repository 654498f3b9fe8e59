"""GetTrainingHistory and GetParameters: what they are asked, what they answer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from export.architecture import Stage
from export.bundle.manifest import HISTORY_FILE, SNAPSHOTS_FILE
from export.bundle.record import EpochRecord
from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.codec import encode_into, identity_message
from server.api.sizes import (
    EPOCH_OVERHEAD_BYTES,
    MAX_VIOLATIONS,
    STAGE_OVERHEAD_BYTES,
    check_response_size,
)
from server.errors import InvalidArgumentError, NotFoundError, Violation, quote
from server.limits import RequestLimits
from server.repository.current import ActiveModel

ADVICE = "name fewer stages, or raise --max-response-bytes of the server"
HISTORY_ADVICE = "raise --max-response-bytes of the server"
MAX_NAMED_EPOCHS = 100  # in an error's text
FLOAT32_BYTES, FLOAT16_BYTES = 4, 2


def history_message(active: ActiveModel, limits: RequestLimits) -> pb.GetTrainingHistoryResponse:
    """Return the response.

    Raises:
        NotFoundError: the model was published without a record of its training.
        InvalidArgumentError: the response would be too large.
    """
    epochs, snapshots = active.model.record
    if not epochs:
        raise _not_there(active, HISTORY_FILE)
    kept = list(snapshots.by_epoch) if snapshots else []
    needed = history_bytes(epochs, len(kept))
    violations: list[Violation] = []
    check_response_size(needed, limits, "request", HISTORY_ADVICE, violations)
    if violations:
        raise InvalidArgumentError(violations)
    return pb.GetTrainingHistoryResponse(
        model=identity_message(active.identity),
        epochs=[
            pb.Epoch(
                epoch=each.epoch,
                train_loss=each.train_loss,
                train_accuracy=each.train_accuracy,
                held_out_loss=each.held_out_loss,
                held_out_accuracy=each.held_out_accuracy,
                learning_rate=each.learning_rate,
                seconds=each.seconds,
                observation=each.observation,
            )
            for each in epochs
        ],
        snapshot_epochs=kept,
        served_epoch=snapshots.served_epoch if snapshots else 0,
    )


def history_bytes(epochs: Sequence[EpochRecord], snapshots: int) -> int:
    """Return an upper limit of the bytes of a history."""
    texts = sum(len(each.observation.encode()) for each in epochs)
    return STAGE_OVERHEAD_BYTES + len(epochs) * EPOCH_OVERHEAD_BYTES + texts + 5 * snapshots


class ParametersPlan(NamedTuple):
    """The parameters to return: of which stages, in the model's order, and of which epoch."""

    stages: Sequence[Stage]
    epoch: int | None  # None: those that are served


def plan_parameters(
    request: pb.GetParametersRequest, active: ActiveModel, limits: RequestLimits
) -> ParametersPlan:
    """Return what a request asks for.

    Raises:
        InvalidArgumentError: with everything that is wrong with the request.
    """
    violations: list[Violation] = []
    epoch = request.epoch if request.HasField("epoch") else None
    if epoch is not None and epoch < 0:
        violations.append(Violation("epoch", f"expected 0 or more, got {epoch}"))
    chosen = _chosen(request.stages, active.model.manifest.stages, violations)
    needed = parameters_bytes(active, chosen, FLOAT32_BYTES if epoch is None else FLOAT16_BYTES)
    check_response_size(needed, limits, "stages", ADVICE, violations)
    if violations:
        raise InvalidArgumentError(violations)
    return ParametersPlan(chosen, epoch)


def _chosen(
    named: Sequence[str], stages: Sequence[Stage], violations: list[Violation]
) -> list[Stage]:
    """Return the stages that are named, all that have parameters if none is."""
    possible = {stage.name: stage for stage in stages if stage.operation == "Linear"}
    others = {stage.name for stage in stages} - set(possible)
    expected = f"expected one of {', '.join(possible)}"
    chosen: set[str] = set()
    for index, name in enumerate(named):
        if len(violations) >= MAX_VIOLATIONS:
            break
        path = f"stages[{index}]"
        if name in others:
            text = f"{expected}, got {quote(name)}, which has no parameters"
            violations.append(Violation(path, text))
        elif name not in possible:
            violations.append(Violation(path, f"{expected}, got {quote(name)}"))
        elif name in chosen:
            violations.append(Violation(path, f"{quote(name)} is named twice"))
        chosen.add(name)
    return [stage for name, stage in possible.items() if name in chosen or not named]


def parameters_bytes(active: ActiveModel, stages: Sequence[Stage], element_bytes: int) -> int:
    """Return an upper limit of the bytes of the parameters of stages, from shapes alone."""
    counts = active.model.parameter_counts
    each = (STAGE_OVERHEAD_BYTES + counts[stage.name] * element_bytes for stage in stages)
    return STAGE_OVERHEAD_BYTES + sum(each)


def parameters_message(active: ActiveModel, plan: ParametersPlan) -> pb.GetParametersResponse:
    """Return the response.

    Raises:
        NotFoundError: the parameters of the epoch were not kept; the text names those that were.
    """
    response = pb.GetParametersResponse(model=identity_message(active.identity), epoch=plan.epoch)
    of_epoch = None if plan.epoch is None else _kept(active, plan.epoch)
    layers = active.model.network.layers
    for stage in plan.stages:
        added = response.stages.add(stage=stage.name)
        for part, tensor in (("weight", added.weight), ("bias", added.bias)):
            if of_epoch is None:  # exact: the layer has the float32 values in float64
                array = getattr(layers[stage.name], part).astype(np.float32)
                encode_into(tensor, array)
            else:
                encode_into(tensor, of_epoch[f"{stage.name}.{part}"], pb.DATA_TYPE_FLOAT16)
    return response


def _kept(active: ActiveModel, epoch: int) -> Mapping[str, np.ndarray]:
    snapshots = active.model.record.snapshots
    if snapshots is None:
        raise _not_there(active, SNAPSHOTS_FILE)
    if epoch not in snapshots.by_epoch:
        epochs = list(snapshots.by_epoch)
        more = len(epochs) - MAX_NAMED_EPOCHS
        rest = f" and {more} more up to {epochs[-1]}" if more > 0 else ""
        raise NotFoundError(
            f"no parameters of epoch {epoch} were kept; kept are those of the epochs "
            f"{', '.join(map(str, epochs[:MAX_NAMED_EPOCHS]))}{rest}"
        )
    return snapshots.by_epoch[epoch]


def _not_there(active: ActiveModel, file: str) -> NotFoundError:
    """Return the error for a file of the record that the served version lacks."""
    manifest = active.model.manifest
    model = f"{manifest.name!r} version {manifest.version}"
    if file in {entry.name for entry in manifest.files}:
        text = f"the record of the training of {model} is damaged; the server's log has the reason"
    else:
        text = f"{model} was published without {file}; train and publish a version that has it"
    return NotFoundError(text)
