"""The tables of the output: what was scored, and the bad rows."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from deploy.ray.score.chunks import BadRow, Chunk
from export.architecture import Stage
from export.bundle.manifest import Manifest
from export.parity.certificates import Certificates
from export.runtimes import Runner

CERTIFICATE = pa.struct(
    [
        ("certified", pa.bool_()),
        ("predicted_class", pa.int32()),
        ("nearest_class", pa.int32()),
        ("gap", pa.float64()),
        ("bound", pa.float64()),
    ]
)
SCORING_KEY = b"forward.scoring"  # of the metadata: which scoring a file belongs to


class Scores(NamedTuple):
    """What was computed of the images of a chunk."""

    logits: np.ndarray  # float32 [N, classes]
    activations: Mapping[str, np.ndarray]  # float32 [N, ...], by the names of the stages
    certificates: Certificates | None


def metadata_of(manifest: Manifest, runner: Runner, scoring: str) -> dict[bytes, bytes]:
    """Return what every file of the output says of itself."""
    words = {
        "forward.model": manifest.name,
        "forward.model_version": str(manifest.version),
        "forward.manifest_sha256": manifest.sha256,
        "forward.runtime": runner.runtime,
        "forward.provider": runner.provider,
        "forward.precision": runner.precision,
        "forward.labels": json.dumps(manifest.labels),
        SCORING_KEY.decode(): scoring,
    }
    return {name.encode(): text.encode() for name, text in words.items()}


def rows_table(
    chunk: Chunk, scores: Scores, stages: Sequence[Stage], metadata: dict[bytes, bytes]
) -> pa.Table:
    """Return the table of the images of a chunk, a row each."""
    logits = scores.logits
    columns = [
        (pa.field("source", pa.string(), nullable=False), pa.array(chunk.sources, pa.string())),
        (pa.field("row", pa.int64(), nullable=False), pa.array(chunk.rows, pa.int64())),
        _lists("logits", logits, logits.shape[1:]),
        _column("class", logits.argmax(axis=1).astype(np.int32)),
        _column("confidence", confidence_of(logits)),
    ]
    if scores.certificates is not None:
        columns.append(_certificates(scores.certificates))
    if stages:
        pairs = [
            _lists(stage.name, scores.activations[stage.name], stage.shape) for stage in stages
        ]
        fields = [field for field, _ in pairs]
        array = pa.StructArray.from_arrays([array for _, array in pairs], fields=fields)
        columns.append((pa.field("activations", array.type, nullable=False), array))
    schema = pa.schema([field for field, _ in columns], metadata)
    return pa.Table.from_arrays([array for _, array in columns], schema=schema)


def bad_table(bad: Sequence[BadRow], metadata: dict[bytes, bytes]) -> pa.Table:
    """Return the table of bad rows."""
    schema = pa.schema(
        [
            pa.field("source", pa.string(), nullable=False),
            pa.field("row", pa.int64()),
            pa.field("rows", pa.int64(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
        ],
        metadata,
    )
    columns = {name: [getattr(one, name) for one in bad] for name in schema.names}
    return pa.Table.from_pydict(columns, schema=schema)


def confidence_of(logits: np.ndarray) -> np.ndarray:
    """Return the softmax probability of the class, float64 [N]."""
    exact = logits.astype(np.float64)
    confidence: np.ndarray = 1 / np.exp(exact - exact.max(axis=1, keepdims=True)).sum(axis=1)
    return confidence


def _column(name: str, values: np.ndarray) -> tuple[pa.Field, pa.Array]:
    array = pa.array(values)
    return pa.field(name, array.type, nullable=False), array


def _lists(name: str, values: np.ndarray, shape: Sequence[int]) -> tuple[pa.Field, pa.Array]:
    """Return a column with the elements of each image as a list, the shape in its metadata."""
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    array = pa.FixedSizeListArray.from_arrays(pa.array(flat), int(np.prod(shape)))
    metadata = {"forward.shape": json.dumps(list(shape))}
    return pa.field(name, array.type, nullable=False, metadata=metadata), array


def _certificates(found: Certificates) -> tuple[pa.Field, pa.Array]:
    values = (found.certified, found.predicted, found.nearest, found.gap, found.bound)
    arrays = [pa.array(value, field.type) for value, field in zip(values, CERTIFICATE, strict=True)]
    array = pa.StructArray.from_arrays(arrays, fields=list(CERTIFICATE))
    return pa.field("certificate", CERTIFICATE, nullable=False), array
