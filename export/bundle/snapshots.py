"""The snapshots of a training: the parameters after some epochs, in half precision."""

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from pydantic import NonNegativeInt, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from export.architecture import Stage, parameter_shapes
from export.bundle.manifest import SNAPSHOTS_FILE, WEIGHTS_FILE, Record
from export.bundle.reading import Bundle
from export.bundle.weights import read_weights
from export.errors import BundleError

MAX_SNAPSHOT_BYTES = 3_000_000  # of the file: a server keeps it in memory
# What a snapshot takes of the file's header: the entry of each tensor (name, type, shape, place),
# and its number in the index; and the rest of the header.
TENSOR_BYTES, EPOCH_BYTES, REST_BYTES = 128, 16, 256
INDEX = "training"  # of the file's metadata; one key alone, of several the order differs by run

Parameters = Mapping[str, np.ndarray]


class SnapshotIndex(Record):
    """The entry of the metadata: the epochs, ascending, and the one whose parameters are served."""

    epochs: tuple[NonNegativeInt, ...]
    served_epoch: NonNegativeInt


class Snapshots(NamedTuple):
    """Parameters by epoch, ascending, float16 by name as in `weights.safetensors`."""

    by_epoch: Mapping[int, Parameters]  # 0 is before the training
    served_epoch: int


def half_precision(parameters: Parameters) -> dict[str, np.ndarray]:
    """Return parameters as float16, rounded to nearest; too large ones become infinite."""
    with np.errstate(over="ignore"):
        return {name: array.astype("<f2") for name, array in parameters.items()}


def most_snapshots(stages: Sequence[Stage]) -> int:
    """Return how many snapshots of a network fit into a file."""
    shapes = parameter_shapes(stages).values()
    each = EPOCH_BYTES + sum(TENSOR_BYTES + 2 * prod(shape) for shape in shapes)
    return (MAX_SNAPSHOT_BYTES - REST_BYTES) // each


def write_snapshots(snapshots: Snapshots) -> bytes:
    """Return `snapshots.safetensors`: "000/linear1.weight" [out, in] of epoch 0, …."""
    index = SnapshotIndex(
        epochs=tuple(snapshots.by_epoch), served_epoch=snapshots.served_epoch
    ).model_dump_json()
    tensors = {
        tensor_name(epoch, name): array
        for epoch, parameters in snapshots.by_epoch.items()
        for name, array in parameters.items()
    }
    return save(tensors, metadata={INDEX: index})


def tensor_name(epoch: int, parameter: str) -> str:
    """Return the name of a parameter of an epoch in the file."""
    return f"{epoch:03d}/{parameter}"


def read_snapshots(bundle: Bundle) -> Snapshots | None:
    """Return the snapshots of a bundle; None if it was published without them.

    Raises:
        BundleError: they are not what they must be.
    """
    entry = next((file for file in bundle.manifest.files if file.name == SNAPSHOTS_FILE), None)
    if entry is None:
        return None
    path = bundle.path / SNAPSHOTS_FILE
    if entry.size_bytes > MAX_SNAPSHOT_BYTES:
        raise BundleError(
            f"{path}: expected at most {MAX_SNAPSHOT_BYTES} bytes, got {entry.size_bytes}"
        )
    data = bundle.read(SNAPSHOTS_FILE)
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        index = SnapshotIndex.model_validate_json(header["__metadata__"][INDEX])
    except (SafetensorError, KeyError, ValidationError) as error:
        raise BundleError(f"{path}: no snapshots of a training: {error}") from error
    snapshots = _checked(bundle, index, tensors)
    _check_served(bundle, snapshots)
    return snapshots


def _checked(bundle: Bundle, index: SnapshotIndex, tensors: Parameters) -> Snapshots:
    """Return the tensors by epoch, each with the parameters of the stages, all finite."""
    path, epochs = bundle.path / SNAPSHOTS_FILE, index.epochs
    if list(epochs) != sorted(set(epochs)):
        raise BundleError(f"{path}: expected ascending epochs, got {list(epochs)}")
    if index.served_epoch not in epochs:
        raise BundleError(
            f"{path}: expected the epoch that is served, {index.served_epoch}, among the epochs "
            f"{list(epochs)}"
        )
    shapes = parameter_shapes(bundle.manifest.stages)
    expected = {
        tensor_name(epoch, name): (shape, "float16")
        for epoch in epochs
        for name, shape in shapes.items()
    }
    found = {name: (array.shape, str(array.dtype)) for name, array in tensors.items()}
    if wrong := sorted(name for name, _ in expected.items() ^ found.items()):
        name = wrong[0]
        raise BundleError(
            f"{path}: {name!r}: expected {expected.get(name, 'no such parameter')}, got "
            f"{found.get(name, 'none')}"
        )
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise BundleError(f"{path}: {name!r}: expected finite parameters, got others")
    return Snapshots(
        {epoch: {name: tensors[tensor_name(epoch, name)] for name in shapes} for epoch in epochs},
        index.served_epoch,
    )


def _check_served(bundle: Bundle, snapshots: Snapshots) -> None:
    """Check that the served epoch's parameters are those that are served, rounded."""
    served = half_precision(read_weights(bundle))
    for name, array in snapshots.by_epoch[snapshots.served_epoch].items():
        if not np.array_equal(array, served[name]):
            raise BundleError(
                f"{bundle.path / SNAPSHOTS_FILE}: {name!r} of epoch {snapshots.served_epoch} "
                f"differs from {WEIGHTS_FILE}, of which it must be the float16 rounding"
            )
