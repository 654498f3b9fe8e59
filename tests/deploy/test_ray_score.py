"""Batch scoring with a real Ray, compared with a real server."""

import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from deploy.ray.score.config import ScoreSettings
from deploy.ray.score.errors import ScoreError
from deploy.ray.score.progress import Summary
from deploy.ray.score.run import score as score_images
from export.errors import ExportError
from export.settings import read_settings
from forward_client import ForwardClient, ForwardError
from forward_client.pictures import load_images
from tests.support.bundles import MODELS_DIR, REPOSITORY, publish_random_bundle
from tests.support.ray_clusters import ENVIRONMENT, family_of, ray_cluster

if TYPE_CHECKING:
    from tests.support.servers import RunningServer
    from training.data import Data

# What is scored is compared with the answers of one transport; both give the same.
pytestmark = pytest.mark.one_transport

SECONDS = 240
IDX, FLOATS, LISTS, PICTURE = "t10k-images-idx3-ubyte.gz", "floats.npy", "lists.parquet", "4.png"
USUAL = ("--stages", "relu,input", "--column", "pixels", "--chunk-images", "1000")
FEW = 1500  # images of the other kinds, which come from the same 10,000


class Done(NamedTuple):
    """How the command ended, and what it said."""

    status: int
    output: str
    errors: str


def command(source: Path | str, output: Path | str, *flags: str) -> list[str]:
    return [sys.executable, "-m", "deploy.ray", "score", str(source), str(output), *flags]


def score(source: Path | str, output: Path | str, *flags: str, **variables: str) -> Done:
    done = subprocess.run(
        command(source, output, *flags),
        cwd=REPOSITORY,
        env={**ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def table_of(output: Path, folder: str = "rows") -> pa.Table:
    """Return all parts as one table, in the order of their names."""
    return ds.dataset(sorted((output / folder).iterdir()), format="parquet").to_table()


def rows_of(table: pa.Table, source: str) -> pa.Table:
    return table.filter(ds.field("source") == source)


def lists_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of lists as an array, [N, size]."""
    size = column.type.list_size
    flat: np.ndarray = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, size)


def write_parquet(path: Path, images: np.ndarray) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 784)
    pq.write_table(pa.table({"pixels": column}), path, row_group_size=700)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a Ray that the tests share."""
    with ray_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def levels(mnist: "Data") -> np.ndarray:
    """The 10,000 test images, uint8."""
    images: np.ndarray = np.rint(mnist.test.pixels().numpy() * 255).astype(np.uint8)
    return images


@pytest.fixture(scope="module")
def source(levels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of MNIST's test images, of every kind, and with what can't be scored."""
    folder = tmp_path_factory.mktemp("images")
    header = bytes([0, 0, 8, 3]) + np.array(levels.shape, ">u4").tobytes()
    (folder / IDX).write_bytes(gzip.compress(header + levels.tobytes(), 1))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"not read")
    floats = levels[:FEW].astype(np.float32) / np.float32(255)
    np.save(folder / FLOATS, floats)
    write_parquet(folder / LISTS, levels[:FEW])
    (folder / PICTURE).write_bytes((REPOSITORY / "docs/digit.png").read_bytes())
    bad = floats[:4].copy()
    bad[1, 0, 5], bad[2] = np.nan, levels[2]
    np.save(folder / "bad.npy", bad)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "cut.npy").write_bytes((folder / FLOATS).read_bytes()[: 128 + 3136 * 5 + 7])
    return folder


@pytest.fixture(scope="module")
def scored(
    address: str, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Done]:
    """The output of that folder, and how the command ended."""
    output = tmp_path_factory.mktemp("scores") / "out"
    done = score(source, output, *USUAL, "--workers", "1", FORWARD_SCORE_ADDRESS=address)
    assert done.status == 3, done
    return output, done


def test_every_logit_and_decision_is_that_of_predict(
    scored: tuple[Path, Done], client: ForwardClient, levels: np.ndarray
) -> None:
    table = table_of(scored[0])
    predictions = [client.predict(levels[at : at + 1000]) for at in range(0, len(levels), 1000)]
    logits = np.concatenate([each.logits for each in predictions])
    confidence = np.concatenate([each.probabilities.max(axis=1) for each in predictions])
    for name, count in ((IDX, 10_000), (FLOATS, FEW), (LISTS, FEW)):
        rows = rows_of(table, name)
        assert rows["row"].to_pylist() == list(range(count))
        assert lists_of(rows["logits"]).tobytes() == logits[:count].tobytes()
        np.testing.assert_array_equal(rows["class"], logits[:count].argmax(axis=1))
        np.testing.assert_allclose(rows["confidence"], confidence[:count], rtol=1e-12)


def test_a_picture_is_scored_as_the_client_sends_it(
    scored: tuple[Path, Done], client: ForwardClient, source: Path
) -> None:
    row = rows_of(table_of(scored[0]), PICTURE)
    expected = client.predict(load_images(source / PICTURE))
    assert lists_of(row["logits"]).tobytes() == expected.logits.tobytes()
    assert row["row"].to_pylist() == [0]


def test_activations_and_certificates_are_those_of_trace(
    scored: tuple[Path, Done], client: ForwardClient, levels: np.ndarray
) -> None:
    rows = rows_of(table_of(scored[0]), IDX).slice(0, 64)
    trace = client.trace(levels[:64], detail="full", certify=True)
    stages = {stage.name: stage.values for stage in trace.stages}
    activations = rows["activations"].combine_chunks()
    assert [field.name for field in activations.type] == ["input", "relu"]
    for field in activations.type:
        values = lists_of(pa.chunked_array([activations.field(field.name)]))
        full = stages[field.name]
        assert full is not None
        assert values.tobytes() == full.reshape(64, -1).tobytes()
        assert json.loads(field.metadata[b"forward.shape"]) == list(full.shape[1:])
    for row, expected in zip(rows["certificate"].to_pylist(), trace.certificates, strict=True):
        assert row["certified"] == expected.certified
        assert row["predicted_class"] == expected.predicted_class
        assert row["nearest_class"] == expected.nearest_class
        np.testing.assert_allclose(
            [row["gap"], row["bound"]], [expected.gap, expected.bound], rtol=1e-9
        )


def test_bad_rows_are_kept_apart_with_the_words_of_the_server(
    scored: tuple[Path, Done], client: ForwardClient, source: Path
) -> None:
    output, done = scored
    bad = {(row["source"], row["row"]): row for row in table_of(output, "bad-rows").to_pylist()}
    assert bad.keys() == {("bad.npy", 1), ("bad.npy", 2), ("broken.png", 0), ("cut.npy", 5)}
    images = np.load(source / "bad.npy")
    for row in (1, 2):
        with pytest.raises(ForwardError) as refused:
            client.predict(images[row])
        ((_, description),) = refused.value.violations
        assert bad["bad.npy", row]["reason"] == f"data: {description}"
    assert bad["cut.npy", 5]["rows"] == FEW - 5
    assert rows_of(table_of(output), "bad.npy")["row"].to_pylist() == [0, 3]
    assert rows_of(table_of(output), "cut.npy")["row"].to_pylist() == [0, 1, 2, 3, 4]
    good, wrong = 10_000 + 2 * FEW + 1 + 2 + 5, 3 + FEW - 5
    assert f"{good:,} images scored in all, {wrong:,} bad rows" in done.output
    assert "ignored, not of a kind that is read: t10k-labels-idx1-ubyte.gz\n" in done.output
    where = f"the bad rows and their reasons are in {output}/bad-rows"
    assert done.errors == f"python -m deploy.ray score: {where}\n"


def test_every_file_says_what_computed_it(
    scored: tuple[Path, Done], served: "RunningServer"
) -> None:
    manifest = json.loads((MODELS_DIR / "mnist/1/manifest.json").read_text())
    for path in scored[0].rglob("*.parquet"):
        metadata = pq.read_schema(path).metadata
        assert metadata[b"forward.model"] == b"mnist"
        assert metadata[b"forward.model_version"] == b"1"
        assert metadata[b"forward.manifest_sha256"].decode() == manifest["sha256"]
        assert metadata[b"forward.runtime"] == served.ready["runtime"].encode()


def score_here(*arguments: Path | str) -> tuple[Summary, str]:
    """Score in this process, which Ray does not do: it is for what needs none."""
    settings, said = read_settings(ScoreSettings, list(map(str, arguments))), StringIO()
    return score_images(settings, Console(file=said)), said.getvalue()


def refusal(*arguments: Path | str) -> str:
    with pytest.raises((ScoreError, ExportError)) as refused:
        score_here(*arguments)
    return str(refused.value)


def test_a_finished_scoring_has_nothing_left(source: Path, scored: tuple[Path, Done]) -> None:
    before = {path: path.stat().st_mtime_ns for path in scored[0].rglob("*")}
    summary, said = score_here(source, scored[0], *USUAL)
    assert "nothing is left to score" in said
    assert f"{summary.rows:,} images scored in all, {summary.bad:,} bad rows" in scored[1].output
    assert {path: path.stat().st_mtime_ns for path in scored[0].rglob("*")} == before


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--stages", "linear2"), 'there, ["input", "relu", "linear2"] now'),  # flags add up
        (("--models-dir", "{other}"), "manifest_sha256: "),
        (("--no-certify",), "certify: true there, false now"),
        (("--chunk-images", "999"), "chunk_images: 1000 there, 999 now"),
        (("--batch-images", "7"), "batch_images: 1024 there, 7 now"),
        (("--column", "image"), 'column: "pixels" there, "image" now'),
        (("--runtime", "pt2"), 'runtime: "onnx" there, "pt2" now'),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_outputs_of_two_scorings_never_mix(
    flags: tuple[str, ...], what: str, source: Path, scored: tuple[Path, Done], tmp_path: Path
) -> None:
    publish_random_bundle(tmp_path, "mnist", (28, 28), tuple("0123456789"))
    given = [flag.format(other=tmp_path) for flag in flags]
    text = refusal(source, scored[0], *USUAL, *given)
    assert f"{scored[0]}: was begun with something else (" in text
    assert what in text
    assert "give another output folder, or remove this one to score anew" in text


def test_a_changed_input_is_another_scoring(scored: tuple[Path, Done], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 28, 28), np.uint8))
    assert "input_sha256: " in refusal(tmp_path, scored[0], *USUAL)


def test_an_output_killed_midway_is_continued_to_the_same_rows(
    address: str, levels: np.ndarray, scored: tuple[Path, Done], tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    np.save(source / "a.npy", np.tile(levels, (2, 1, 1)))
    flags = ("--chunk-images", "250", "--cpus", "2", "--object-store-mb", "90", "--workers", "1")
    with subprocess.Popen(
        command(source, output, *flags),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for(lambda: len(parts(output)) >= 5, process)
            family = family_of(process.pid)
            raylet = next(one for one in family if one.name() == "raylet")
            words = " ".join(raylet.cmdline())
            workers = [one for one in family if "MapWorker" in " ".join(one.cmdline())]
        finally:
            process.kill()
    written = {path.name: path.read_bytes() for path in parts(output)}
    assert 5 <= len(written) < 80
    assert f"--object_store_memory={90 << 20}" in words
    assert re.search(r"--static_resource_list=\S*CPU,2\b", words)
    assert len(workers) == 1
    _, alive = psutil.wait_procs(family, timeout=SECONDS)
    assert alive == []  # Ray ended with the command

    one_worker = ("--chunk-images", "250", "--workers", "1")
    done = score(source, output, *one_worker, FORWARD_SCORE_ADDRESS=address)
    assert done.status == 0, done
    assert f"continues: {250 * len(written):,} images are scored already" in done.output
    assert not (output / "_temporary").exists()
    assert {path.name: path.read_bytes() for path in parts(output)}.items() >= written.items()
    table = table_of(output)
    assert table["row"].to_pylist() == list(range(20_000))
    expected = lists_of(rows_of(table_of(scored[0]), IDX)["logits"])
    assert lists_of(table["logits"]).tobytes() == np.tile(expected, (2, 1)).tobytes()


def parts(output: Path) -> list[Path]:
    return sorted((output / "rows").glob("*.parquet"))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_more_workers_than_ray_has_room_for_are_refused(
    address: str, source: Path, tmp_path: Path
) -> None:
    refused = score(source, tmp_path / "out", "--workers", "4", FORWARD_SCORE_ADDRESS=address)
    assert refused.status == 1
    assert "--workers: 4 leave no CPU to read and write with; Ray has 2 CPUs" in refused.errors


def test_a_ray_that_does_not_start_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises an Exception of no other type if it takes too long, as on a busy machine."""
    from deploy.ray.score import pipeline  # noqa: PLC0415 (ray takes a second)

    def fail(*_: object, **__: object) -> None:
        os.write(2, b"what its core says\n")
        raise Exception("it timed out")  # noqa: TRY002 (as Ray does)

    monkeypatch.setattr("ray.init", fail)
    settings = read_settings(ScoreSettings, ["in", "out"])
    with (
        pytest.raises(ScoreError, match="Ray can't be started: it timed out\nwhat its core says"),
        pipeline.cluster(settings),
    ):
        pass


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--stages", "relu,nine"), "--stages: 'mnist' version 1 has no stage 'nine'; its"),
        (("--model", "none"), "no model 'none' in models (models there: mnist)"),
        (("--model-version", "7"), "no version 7 of model 'mnist' in models"),
    ],
    ids=["stages", "model", "version"],
)
def test_what_the_model_has_not_stops_the_start(
    flags: tuple[str, ...], text: str, source: Path, tmp_path: Path
) -> None:
    assert text in refusal(source, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--address", "x:1", "--cpus", "2"), "--cpus and --address: the cluster has decided"),
        (("--object-store-mb", "20"), "--object-store-mb (FORWARD_SCORE_OBJECT_STORE_MB): "),
        (("--unknown",), "--unknown"),
    ],
    ids=["both", "memory", "unknown"],
)
def test_wrong_settings_are_named(
    flags: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        score_here("in", "out", *flags)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_wrong_folders_stop_the_start(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("x")
    for given, output, text in (
        (source, other, "is not empty and has no scoring.json"),
        (source, source / "out", "is in the input, or the input in it"),
        (tmp_path / "none", tmp_path / "out", "there is no such folder or file"),
        (other, tmp_path / "out", "expected files whose names end in .parquet"),
        ("none://x", tmp_path / "out", "none://x: expected a folder, or a URI"),
    ):
        assert text in refusal(given, output)
