"""Scores chunks with a bundle, by the code of the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from deploy.ray.score.chunks import Chunk
from deploy.ray.score.errors import ScoreError
from deploy.ray.score.tables import Scores, bad_table, metadata_of, rows_table
from export.bundle import find_bundle
from export.bundle.manifest import Manifest
from export.parity.certificates import Certificates
from server.engine.model import load_verified
from server.engine.staging import pixels_of

RuntimeName = Literal["onnx", "pt2", "torchscript"]


class ScoredPart(NamedTuple):
    """What becomes of a chunk: the tables of an output file and of its bad rows."""

    name: str
    rows: pa.Table | None = None
    bad: pa.Table | None = None
    failure: str = ""


@dataclass(frozen=True)
class Scoring:
    """What every worker knows of the scoring that it is part of."""

    models_dir: Path
    manifest: Manifest
    runtime: RuntimeName
    stages: tuple[str, ...]
    certify: bool
    batch_images: int
    sha256: str  # of all that decides the output


class Scorer:
    """A bundle, verified and opened as the server does, that scores chunks.

    Raises:
        ExportError: the bundle can't be loaded.
        ScoreError: it is not the one that the scoring began with.
    """

    def __init__(self, scoring: Scoring) -> None:
        manifest = scoring.manifest
        bundle = find_bundle(scoring.models_dir, manifest.name, manifest.version)
        if bundle.manifest.sha256 != manifest.sha256:
            raise ScoreError(
                f"{bundle.path}: has another bundle than the scoring began with; every machine "
                "must see the same model repository, and none may change while it is in use"
            )
        # One thread: there is a worker for each CPU.
        self._model = load_verified(bundle, scoring.runtime, "cpu", threads=1)
        self._scoring = scoring
        self._metadata = metadata_of(manifest, self._model.runner, scoring.sha256)
        self._stages = [stage for stage in manifest.stages if stage.name in scoring.stages]

    def score(self, chunk: Chunk) -> ScoredPart:
        """Return the tables of a chunk."""
        if chunk.failure:
            return ScoredPart(chunk.part, failure=chunk.failure)
        shape = self._model.manifest.input_shape
        images = np.empty((0, *shape), np.uint8) if chunk.images is None else chunk.images
        rows = rows_table(chunk, self._scores(images), self._stages, self._metadata)
        bad = bad_table(chunk.bad, self._metadata) if chunk.bad else None
        return ScoredPart(chunk.part, rows, bad)

    def _scores(self, images: np.ndarray) -> Scores:
        """Score images in batches, each as a request of its own is by the server."""
        size = self._scoring.batch_images
        batches = [pixels_of(images[at : at + size]) for at in range(0, len(images), size)]
        model, names = self._model, [stage.name for stage in self._stages]
        logits = [model.runner.predict(batch) for batch in batches]
        traces = [model.runner.trace(batch, names) for batch in batches] if names else []
        proofs: Sequence[Certificates] = ()
        if self._scoring.certify:
            precision = model.runner.precision
            proofs = [model.prover.prove(batch, precision).certificates for batch in batches]
        shapes = {stage.name: stage.shape for stage in self._stages}
        return Scores(
            _joined(logits, (len(model.manifest.labels),)),
            {name: _joined([trace[name] for trace in traces], shapes[name]) for name in names},
            _joined_proofs(proofs) if self._scoring.certify else None,
        )


def _joined(arrays: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty((0, *shape), np.float32)


def _joined_proofs(proofs: Sequence[Certificates]) -> Certificates:
    """Return the certificates of several batches as one."""
    none = np.empty(0)
    names = ("predicted", "nearest", "gap", "bound")
    columns = [[none.astype(int if name in names[:2] else float)] for name in names]
    for proof in proofs:
        for column, name in zip(columns, names, strict=True):
            column.append(getattr(proof, name))
    return Certificates(*map(np.concatenate, columns))
