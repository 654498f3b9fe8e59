"""The record of a training in a bundle: its epochs, and snapshots of its parameters."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from export.bundle.manifest import HISTORY_FILE, SNAPSHOTS_FILE
from export.bundle.reading import Bundle
from export.bundle.snapshots import Snapshots, read_snapshots
from export.errors import BundleError

MAX_HISTORY_BYTES = 16_000_000  # about 37,000 epochs: a server keeps them in memory
MAX_EPOCH = 2**31 - 1  # what an int32 of the contract holds


class EpochRecord(BaseModel):
    """An epoch's line of `history.jsonl`, as far as it is served; the figures may be NaN."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    epoch: int = Field(ge=1, le=MAX_EPOCH)
    train_loss: float  # nats
    train_accuracy: float  # shares in 0..1
    held_out_loss: float
    held_out_accuracy: float
    learning_rate: float
    seconds: float
    observation: str = ""


class TrainingRecord(NamedTuple):
    """What a bundle tells of its training."""

    epochs: tuple[EpochRecord, ...] = ()  # 1, 2, …; empty if it was published without
    snapshots: Snapshots | None = None


def read_record(bundle: Bundle) -> TrainingRecord:
    """Return the record of a bundle's training, as far as it has one.

    Raises:
        BundleError: a file is damaged, or is not what it must be.
    """
    epochs, snapshots = _read_history(bundle), read_snapshots(bundle)
    if snapshots is not None and (last := max(snapshots.by_epoch)) > len(epochs):
        raise BundleError(
            f"{bundle.path / SNAPSHOTS_FILE}: has epoch {last}, {HISTORY_FILE} has {len(epochs)}"
        )
    return TrainingRecord(epochs, snapshots)


def _read_history(bundle: Bundle) -> tuple[EpochRecord, ...]:
    entry = next((file for file in bundle.manifest.files if file.name == HISTORY_FILE), None)
    if entry is None:
        return ()
    path = bundle.path / HISTORY_FILE
    if entry.size_bytes > MAX_HISTORY_BYTES:
        raise BundleError(
            f"{path}: expected at most {MAX_HISTORY_BYTES} bytes, got {entry.size_bytes}"
        )
    epochs: list[EpochRecord] = []
    for number, line in enumerate(bundle.read(HISTORY_FILE).splitlines(), start=1):
        try:
            epoch = EpochRecord.model_validate_json(line)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'epoch'}: {one['msg']}"
                for one in error.errors()
            )
            raise BundleError(f"{path}: line {number} is no record of an epoch: {faults}") from None
        if epoch.epoch != number:
            raise BundleError(f"{path}: line {number}: expected epoch {number}, got {epoch.epoch}")
        epochs.append(epoch)
    return tuple(epochs)
