"""Chunks become tables by the code of the server."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.ray.score.chunks import BadRow, Chunk
from deploy.ray.score.errors import ScoreError
from deploy.ray.score.locations import open_location
from deploy.ray.score.output import Written, begin, clear, prepare, write
from deploy.ray.score.scorer import ScoredPart, Scorer, Scoring
from export.bundle import Bundle
from export.runtimes import Runner
from export.settings import read_settings
from server.config import ServerSettings
from tests.support.bundles import publish_random_bundle, random_images

SHA256 = "0" * 64


def scoring_of(bundle: Bundle, **changes: Any) -> Scoring:  # noqa: ANN401 (the fields of a scoring)
    models_dir = bundle.path.parent.parent
    usual = Scoring(models_dir, bundle.manifest, "onnx", (), True, 1024, SHA256)
    return replace(usual, **changes)


def chunk_of(images: np.ndarray, part: str = "part-000000-000000000000") -> Chunk:
    return Chunk(part, images, ["a.npy"] * len(images), range(len(images)))


class CountingRunner:
    """Notes how many images each run has."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.runs: list[int] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the runner has)
        return getattr(self._runner, name)

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.runs.append(len(images))
        return self._runner.predict(images)


def test_images_are_scored_in_batches_of_the_setting(tiny: Bundle) -> None:
    scorer = Scorer(scoring_of(tiny, batch_images=4))
    counting = CountingRunner(scorer._model.runner)
    scorer._model = replace(scorer._model, runner=counting)
    part = scorer.score(chunk_of(random_images(10, (3, 5))))
    assert counting.runs == [4, 4, 2]
    assert part.rows is not None
    assert part.rows.num_rows == 10


@pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
def test_a_scoring_uses_its_runtime_and_batches(tiny: Bundle, runtime: str) -> None:
    """Of torch's runtimes the bits depend on the batch: each is one request."""
    images = random_images(10, (3, 5))
    scorer = Scorer(scoring_of(tiny, runtime=runtime, batch_images=4, certify=False))
    runner = scorer._model.runner
    rows = scorer.score(chunk_of(images)).rows
    assert rows is not None
    expected = np.concatenate([runner.predict(images[at : at + 4]) for at in (0, 4, 8)])
    logits = rows["logits"].combine_chunks().flatten().to_numpy()
    assert logits.tobytes() == expected.tobytes()
    assert rows.schema.metadata[b"forward.runtime"].decode() == runtime
    assert json.loads(rows.schema.metadata[b"forward.labels"]) == ["cat", "dog"]
    assert "certificate" not in rows.schema.names


def test_a_chunk_of_bad_rows_alone_has_an_empty_table(tiny: Bundle) -> None:
    stages = tuple(stage.name for stage in tiny.manifest.stages)
    scorer = Scorer(scoring_of(tiny, stages=stages))
    part = scorer.score(Chunk("part-000000-000000000007", bad=[BadRow("a.npy", 7, "why", 3)]))
    full = scorer.score(chunk_of(random_images(2, (3, 5))))
    assert part.rows is not None
    assert part.bad is not None
    assert full.rows is not None
    assert part.rows.num_rows == 0
    assert part.rows.schema.equals(full.rows.schema, check_metadata=True)
    assert part.bad.to_pylist() == [{"source": "a.npy", "row": 7, "rows": 3, "reason": "why"}]


def test_a_worker_refuses_another_bundle(tmp_path: Path, tiny: Bundle) -> None:
    other = publish_random_bundle(tmp_path / "other", "tiny", labels=("a", "b", "c"))
    with pytest.raises(ScoreError, match="has another bundle than the scoring began with"):
        Scorer(scoring_of(tiny, models_dir=other.path.parent.parent))


def test_a_part_is_there_only_when_it_is_whole(tmp_path: Path, tiny: Bundle) -> None:
    output = open_location(str(tmp_path / "out"))
    assert prepare(output, {"a": 1}, SHA256) == []
    part = Scorer(scoring_of(tiny)).score(
        replace(chunk_of(random_images(2, (3, 5))), bad=[BadRow("a.npy", 5, "why", 4)])
    )
    # What a run that was killed has left: half a file, and bad rows without their part.
    (tmp_path / "out/_temporary/half").write_bytes(b"PAR1")
    write(output, ScoredPart("part-000000-000000000009", None, None, "no network"))
    assert prepare(output, {"a": 1}, SHA256) == []
    expected = Written("part-000000-000000000000", 2, 4)
    assert write(output, part) == expected
    assert write(output, part) == expected  # a task that Ray ran twice
    assert prepare(output, {"a": 1}, SHA256) == [expected]
    clear(output)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bad-rows",
        "rows",
        "scoring.json",
    ]


def test_parts_of_another_scoring_and_damaged_ones_are_refused(
    tmp_path: Path, tiny: Bundle
) -> None:
    output = open_location((tmp_path / "out").as_uri())
    begin(output, {"a": 1})
    part = Scorer(scoring_of(tiny)).score(chunk_of(random_images(2, (3, 5))))
    write(output, part)
    with pytest.raises(ScoreError, match="is of another scoring; give another output folder"):
        prepare(output, {"a": 1}, "1" * 64)
    (tmp_path / "out/rows" / f"{part.name}.parquet").write_bytes(b"PAR1")
    with pytest.raises(ScoreError, match=r"is damaged: .*; remove it"):
        prepare(output, {"a": 1}, SHA256)
    (tmp_path / "out/scoring.json").write_text("{")
    with pytest.raises(ScoreError, match=r"scoring\.json: is damaged"):
        prepare(output, {"a": 1}, SHA256)


def test_a_server_starts_beside_settings_of_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARD_SCORE_COLUMN", "x")
    assert read_settings(ServerSettings, []).model == "mnist"
