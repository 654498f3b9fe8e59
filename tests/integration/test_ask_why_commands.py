"""The commands that ask why, against real servers; what these can't show, against given answers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import Bundle
from export.bundle.weights import read_weights
from forward.v1 import forward_pb2 as pb
from forward_client import ForwardClient, Intervention
from forward_client.pictures import read_images
from tests.support.bundles import REPOSITORY, publish_random_bundle
from tests.support.canned import Answer, start_canned
from tests.support.commands import run_client
from tests.support.servers import RunningServer, start_server

pytestmark = pytest.mark.one_transport

DIGIT = REPOSITORY / "docs" / "digit.png"
LABELS = tuple("0123456789")


def records_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def logits_of(record: dict[str, Any]) -> np.ndarray:
    return np.array(list(record["logits"].values()), np.float32)


@pytest.fixture(scope="module")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of MNIST's shape with 4 hidden units, which can be changed."""
    models_dir = tmp_path_factory.mktemp("models")
    return publish_random_bundle(models_dir, "mnist", (28, 28), LABELS)


@pytest.fixture(scope="module")
def changeable(random_bundle: Bundle, transport: str) -> Iterator[RunningServer]:
    """A server of it that takes four images in a request."""
    arguments = ("--models-dir", str(random_bundle.path.parent.parent), "--transport", transport)
    with start_server(*arguments, "--max-batch-images", "4") as server:
        yield server


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A picture, and an array of two floating images."""
    folder = tmp_path_factory.mktemp("images")
    images = np.random.default_rng(0).random((2, 28, 28), np.float32)
    np.save(folder / "two.npy", images)
    return DIGIT, folder / "two.npy"


def pixels_of(files: tuple[Path, Path]) -> np.ndarray:
    first = read_images(files[0]).pixels.astype(np.float32) / np.float32(255)
    return np.concatenate([first, np.load(files[1])])


def hidden_of(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    """Return what ReLU gives, in float64."""
    weights = read_weights(bundle)
    flat = images.reshape(len(images), -1).astype(np.float64)
    before = flat @ weights["linear1.weight"].T + weights["linear1.bias"]
    hidden: np.ndarray = np.maximum(before, 0)
    return hidden


def logits_after(bundle: Bundle, hidden: np.ndarray) -> np.ndarray:
    weights = read_weights(bundle)
    logits: np.ndarray = hidden @ weights["linear2.weight"].T + weights["linear2.bias"]
    return logits


def test_a_change_gives_the_logits_of_numpy(
    changeable: RunningServer, random_bundle: Bundle, two_files: tuple[Path, Path]
) -> None:
    changes = ("--set", "relu[1,3]=0.5,-2", "--set", "relu@0=@2", "--set", "relu[0]*=3")
    done = run_client("trace", *two_files, *changes, "--json", address=changeable.address)
    records = records_of(done)
    images = pixels_of(two_files)
    hidden = hidden_of(random_bundle, images)
    hidden[:, [1, 3]] = 0.5, -2
    hidden[0] = hidden[2]
    hidden[:, 0] *= 3
    found = np.stack([logits_of(record) for record in records])
    np.testing.assert_allclose(found, logits_after(random_bundle, hidden), atol=1e-4)
    with ForwardClient(changeable.address) as client:
        unchanged = client.predict(images).logits
    before = np.stack([logits_of(record["unchanged"]) for record in records])
    np.testing.assert_array_equal(before, unchanged)
    assert [Path(record["file"]).name for record in records] == ["digit.png", "two.npy", "two.npy"]
    assert [record["index"] for record in records] == [0, 0, 1]
    trace = records[0]["trace"]
    assert trace["interventions"] == [text for text in changes if text != "--set"]
    assert [stage["name"] for stage in trace["stages"] if stage["changed"]] == ["relu"]


def test_the_library_sends_what_the_text_says(
    changeable: RunningServer, two_files: tuple[Path, Path]
) -> None:
    texts = ("linear1[0,2]+=0.25", "relu=..1")
    flags = [word for text in texts for word in ("--set", text)]
    done = run_client("trace", *two_files, *flags, "--json", address=changeable.address)
    with ForwardClient(changeable.address) as client:
        trace = client.trace(
            pixels_of(two_files),
            {"relu": "full"},
            interventions=[
                Intervention.add("linear1", [0, 2], number=0.25),
                Intervention.clamp("relu", max=1),
            ],
            unchanged_logits=True,
        )
    np.testing.assert_array_equal(np.stack(list(map(logits_of, records_of(done)))), trace.logits)
    (relu,) = trace.stages
    assert relu.changed
    assert relu.values is not None
    assert relu.values.max() <= 1
    assert trace.unchanged is not None
    assert trace.unchanged.classes.shape == (3,)


def test_a_trace_without_changes_has_none_to_show(client: ForwardClient) -> None:
    trace = client.trace(np.zeros((28, 28), np.uint8))
    assert (trace.unchanged, trace.certificates) == (None, ())
    assert [(stage.changed, stage.units, stage.bound) for stage in trace.stages] == [
        (False, None, None)
    ] * 6


def test_logits_before_and_after_are_printed(changeable: RunningServer) -> None:
    done = run_client("trace", DIGIT, "--set", "linear1=0", address=changeable.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("changed: linear1=0\n")
    rows = [line.split() for line in done.stdout.splitlines()]
    headings = ["before", "after", "change", "probability"]
    assert sum(row == headings for row in rows) == 1
    assert ["linear1", "*"] in [row[:2] for row in rows]
    assert ["relu", "[1,"] in [row[:2] for row in rows], "it follows; it was not changed itself"
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_several_images_are_a_row_each(
    changeable: RunningServer, two_files: tuple[Path, Path]
) -> None:
    done = run_client("trace", *two_files, "--set", "relu=0", address=changeable.address)
    rows = [line.replace("│", " ").split() for line in done.stdout.splitlines() if "│" in line]
    assert [row[0] for row in rows if row[0].isdigit()] == ["0", "1", "2"]


def test_images_of_a_batch_must_fit_in_one_request(
    changeable: RunningServer, tmp_path: Path
) -> None:
    np.save(tmp_path / "five.npy", np.zeros((5, 28, 28), np.uint8))
    path = tmp_path / "five.npy"
    for change in ("relu@4=0", "relu=@0"):
        done = run_client("trace", path, "--set", change, address=changeable.address)
        assert done.returncode == 1
        assert "takes up to 4 of: expected at most so many images, got 5" in done.stderr
    done = run_client("trace", path, "--set", "relu=0", "--json", address=changeable.address)
    assert [record["index"] for record in records_of(done)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trace", "x.png", "--set", "relu[x]=0"), "'relu[x]=0': expected a unit, from 0, at char"),
        (("trace", DIGIT, "--set", "output=0"), "interventions[0].stage: expected one of input"),
        (("trace", DIGIT, "--set", "relu[4]=0"), "expected positions from 0 to 3, got 4"),
        (("trace", DIGIT, "--set", "relu=@1"), "expected an image from 0 to 0, got 1"),
        (("trace", "x.png", "--detail", "full"), "invalid choice: 'full'"),
        (("explain", DIGIT, "--target", "x"), "expected a class of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (("explain", "x.png", "--method", "magic"), "invalid choice: 'magic'"),
        (("explain", "x.png"), "x.png: can't be read"),
        (("compare", "x.png"), "x.png: can't be read"),
    ],
    ids=str,
)
def test_a_wrong_question_is_one_clear_line(
    changeable: RunningServer, arguments: tuple[str | Path, ...], message: str
) -> None:
    done = run_client(*arguments, address=changeable.address)
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_explanation_of_a_served_model_is_that_of_numpy(
    changeable: RunningServer, random_bundle: Bundle, two_files: tuple[Path, Path]
) -> None:
    done = run_client("explain", *two_files, "--target", "4", "--json", address=changeable.address)
    records = records_of(done)
    weights = read_weights(random_bundle)
    images = pixels_of(two_files)
    hidden = hidden_of(random_bundle, images)
    of_units = hidden * weights["linear2.weight"][4]
    gradients = ((hidden > 0) * weights["linear2.weight"][4]) @ weights["linear1.weight"]
    of_pixels = gradients.reshape(images.shape) * images
    for record, pixels, units in zip(records, of_pixels, of_units, strict=True):
        np.testing.assert_allclose(record["contributions"], pixels, atol=1e-5)
        np.testing.assert_allclose(record["stage"]["contributions"], units, atol=1e-5)
        assert abs(record["score"] - record["sum"] - record["bias"]) <= record["residual_bound"]


def test_certificates_bounds_and_units_are_printed(
    changeable: RunningServer, two_files: tuple[Path, Path]
) -> None:
    flags = ("--certify", "--detail", "units")
    first, *others = records_of(
        run_client("trace", *two_files, *flags, "--json", address=changeable.address)
    )
    for record in (first, *others):
        certificate = record["certificate"]
        assert certificate["predicted"] == record["label"]
        assert certificate["certified"] == (certificate["gap"] > certificate["bound"])
    relu = first["trace"]["stages"][3]
    assert relu["bound"] > 0
    with ForwardClient(changeable.address) as client:
        values = client.trace(pixels_of(two_files), {"relu": "full"}).stages[0].values
    assert values is not None
    np.testing.assert_allclose(relu["units"]["mean"], np.mean(values, axis=0), rtol=1e-6)
    np.testing.assert_allclose(relu["units"]["zero_share"], np.mean(values == 0, axis=0))
    done = run_client("trace", DIGIT, *flags, address=changeable.address)
    assert "certified: " in done.stdout
    assert "always 0" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_runtimes_of_a_server_agree(
    changeable: RunningServer, two_files: tuple[Path, Path]
) -> None:
    arguments = ("--runtime", "numpy", "--runtime", "onnx", "--json")
    done = run_client("compare", *two_files, *arguments, address=changeable.address)
    (record,) = records_of(done)
    assert (record["images"], record["agrees"]) == (3, True)
    assert [each["runtime"] for each in record["runtimes"]] == ["numpy", "onnx"]
    assert all(len(each["stages"]) == 6 for each in record["runtimes"])


def test_no_color_is_shades_and_letters_in_a_terminal(
    changeable: RunningServer, canned: str
) -> None:
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    for command, address in (("predict", changeable.address), ("explain", canned)):
        # In a process of its own: rich keeps what a style was first written as.
        words = [sys.executable, "-m", "client", command, str(DIGIT), "--address", address]
        colored = subprocess.run(
            words, cwd=REPOSITORY, env=os.environ | terminal, capture_output=True, check=True
        ).stdout.decode()
        assert "▀" in colored
        assert "\x1b[38;2;" in colored
        plain = run_client(
            command, DIGIT, address=address, variables=terminal | {"NO_COLOR": "1"}
        ).stdout
        assert "▀" not in plain
        assert "\x1b[38;2;" not in plain
        dumb = run_client(
            command, DIGIT, address=address, variables=terminal | {"TERM": "dumb"}
        ).stdout
        assert "▀" not in dumb


# What follows asks methods of given answers: the exact attribution, a runtime that diverges.


def tensor_of(array: np.ndarray) -> pb.Tensor:
    array = np.ascontiguousarray(array, "<f4")
    return pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


def described() -> pb.GetModelResponse:
    response = pb.GetModelResponse(labels=LABELS)
    response.model.MergeFrom(pb.ModelIdentity(name="mnist", version=1, runtime="onnx"))
    response.limits.max_batch_images = 2
    for name, operation in (("input", "Input"), ("relu", "ReLU"), ("output", "Output")):
        response.stages.add(name=name, operation=operation)
    return response


def attributed(request: pb.AttributeRequest) -> pb.AttributeResponse:
    """Answer 2 for pixels of the upper half and -1 for those of the lower."""
    count = 1 if len(request.images.shape) == 2 else request.images.shape[0]
    pixels = np.repeat([2.0, -1.0], 14)[None, :, None] * np.ones((count, 28, 28))
    response = pb.AttributeResponse(contributions=tensor_of(pixels))
    if request.stage:
        response.stage_contributions.CopyFrom(tensor_of(np.tile([0.25, -3.0, 0.0], (count, 1))))
    for _ in range(count):
        response.attributions.add(
            target_class=request.target_class if request.HasField("target_class") else 7,
            score=400.0,
            bias=8.0,
            stage_bias=402.75,
            residual=1.5e-6,
            residual_bound=2.5e-5,
        )
    return response


def compared(request: pb.CompareRequest) -> pb.CompareResponse:
    """Answer that the second runtime diverges at relu for images that are not black."""
    is_black = not any(request.images.data)
    response = pb.CompareResponse(model=described().model, certified_share=float(is_black))
    for runtime in request.runtimes or ("numpy", "pt2"):
        diverges = runtime == "pt2" and not is_black
        found = response.runtimes.add(runtime=runtime, different_decisions=int(diverges))
        found.diverges_at = "relu" if diverges else ""
        for name in ("input", "relu", "output"):
            error = 2.0 if diverges and name == "relu" else 0.25
            found.stages.add(stage=name, max_error=error, mean_error=error, max_bound_share=error)
    return response


@pytest.fixture(scope="module")
def canned() -> Iterator[str]:
    answers: dict[str, Answer] = {
        "GetModel": lambda _: described(),
        "Attribute": attributed,
        "Compare": compared,
    }
    with start_canned(answers) as address:
        yield address


def test_explain_prints_pixels_units_and_the_sum(canned: str) -> None:
    done = run_client("explain", DIGIT, address=canned)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{DIGIT}: 7, score 400"
    assert sum("X" * 28 in line for line in lines) == 7
    assert sum("O" * 28 in line for line in lines) == 7
    rows = [line.split() for line in lines]
    units = [row[-2:] for row in rows if row and row[-1] in ("-3.000", "+0.250")]
    assert units == [["1", "-3.000"], ["0", "+0.250"]], "the strongest first, none that is 0"
    for row in (
        ["contributions", "392.000000", "-2.750000"],
        ["bias", "8.000000", "402.750000"],
        ["score", "400.000000", "400.000000"],
        ["residual", "1.5e-06"],
        ["its", "bound", "2.5e-05"],
    ):
        assert row in rows
    assert max(map(len, lines)) <= 80


def test_json_of_an_explanation_has_stable_keys(canned: str, tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.ones((3, 28, 28), np.uint8))
    arguments = ("--target", "4", "--other", "2", "--method", "integrated_gradients", "--json")
    done = run_client("explain", tmp_path / "three.npy", *arguments, address=canned)
    records = records_of(done)
    assert [record["index"] for record in records] == [0, 1, 2]
    record = records[2]
    contributions = record.pop("contributions")
    assert np.shape(contributions) == (28, 28)
    assert record == {
        "file": str(tmp_path / "three.npy"),
        "index": 2,
        "method": "integrated_gradients",
        "target": "4",
        "other": "2",
        "score": 400.0,
        "sum": 392.0,
        "bias": 8.0,
        "residual": 1.5e-6,
        "residual_bound": 2.5e-5,
        "stage": {"name": "relu", "bias": 402.75, "contributions": [0.25, -3.0, 0.0]},
        "model": "",
        "version": 0,
        "runtime": "",
        "warnings": [],
    }
    done = run_client("explain", DIGIT, "--stage", "", "--json", address=canned)
    assert records_of(done)[0]["stage"] is None


@pytest.mark.parametrize(("encoding", "columns"), [("ascii", 80), ("latin-1", 80), ("ascii", 40)])
@pytest.mark.parametrize("command", ["explain", "compare"])
def test_a_poor_terminal_shows_every_sign_and_figure(
    canned: str, command: str, encoding: str, columns: int
) -> None:
    done = run_client(command, DIGIT, address=canned, encoding=encoding, columns=columns)
    assert done.stderr == ""
    assert done.stdout.isascii()
    assert "?" not in done.stdout
    if command == "explain":
        assert "X" * 28 in done.stdout
        assert "O" * 28 in done.stdout
    else:
        assert "diverges at relu" in " ".join(done.stdout.split())
        assert done.stdout.count("25.0%") == 5
    assert max(map(len, done.stdout.splitlines())) <= columns


def test_a_runtime_that_diverges_is_the_exit_status(canned: str, tmp_path: Path) -> None:
    done = run_client("compare", DIGIT, address=canned)
    assert (done.returncode, done.stderr) == (1, "")
    assert "pt2: diverges at relu, 1 of 1 decisions differ" in done.stdout
    assert "numpy: agrees at every stage, 0 of 1 decisions differ" in done.stdout
    done = run_client("compare", DIGIT, "--runtime", "numpy", address=canned)
    assert done.returncode == 0
    np.save(tmp_path / "black.npy", np.zeros((28, 28), np.uint8))
    assert run_client("compare", tmp_path / "black.npy", address=canned).returncode == 0


def test_requests_of_a_comparison_are_added_up(canned: str, tmp_path: Path) -> None:
    """Two images in a request: two black ones, then one that is not."""
    images = np.zeros((3, 28, 28), np.uint8)
    images[2] = 1
    np.save(tmp_path / "three.npy", images)
    done = run_client("compare", tmp_path / "three.npy", "--json", address=canned)
    assert done.returncode == 1
    record = json.loads(done.stdout)
    (numpy, pt2) = record.pop("runtimes")
    assert record == {
        "files": [str(tmp_path / "three.npy")],
        "images": 3,
        "agrees": False,
        "certified_share": 2 / 3,
        "model": "mnist",
        "version": 1,
        "runtime": "onnx",
    }
    assert (numpy["diverges_at"], pt2["diverges_at"]) == (None, "relu")
    assert pt2["different_decisions"] == 1
    assert pt2["stages"][1] == {
        "stage": "relu",
        "max_error": 2.0,
        "mean_error": pytest.approx((2 * 0.25 + 2.0) / 3),
        "max_bound_share": 2.0,
        "max_ulps": 0.0,
    }


def test_meaningless_arguments_are_refused_before_the_call() -> None:
    image = np.zeros((28, 28), np.uint8)
    with ForwardClient("127.0.0.1:1") as nobody:
        with pytest.raises(ValueError, match="expected a method of linear_region, integrated_gr"):
            nobody.attribute(image, method="magic")  # type: ignore[arg-type] # that is the question
        for wrong in (-1, 1.0, True, 2**31):
            with pytest.raises(ValueError, match="expected a class as target, from 0"):
                nobody.attribute(image, target=wrong)  # type: ignore[arg-type] # the same
        with pytest.raises(TypeError, match=r"expected a sequence of runtimes, got 'onnx'; write"):
            nobody.compare(image, "onnx")
        with pytest.raises(TypeError, match="expected a sequence of interventions, got one"):
            nobody.trace(image, interventions=Intervention.zero("relu"))  # type: ignore[arg-type] # the same
        with pytest.raises(TypeError, match=r"of a text make one by Intervention\.parse"):
            nobody.trace(image, interventions=["relu=0"])  # type: ignore[list-item] # the same
