"""The client, as a command and as a library, against a real server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import forward_client
from export.bundle import Bundle
from export.runtimes import Runner
from forward_client import ForwardClient, ForwardError
from forward_client import __main__ as command_line
from tests.support.bundles import REPOSITORY, random_images
from tests.support.commands import run_client
from tests.support.servers import RunningServer, start_held_server, start_server
from training.data import Data

STAGES = ["input", "flatten", "linear1", "relu", "linear2", "output"]


@pytest.fixture
def seven(tmp_path: Path, mnist: Data) -> Path:
    """A picture of a 7, saved from MNIST's test set."""
    assert mnist.test.labels[0] == 7
    path = tmp_path / "seven.png"
    Image.fromarray(mnist.test.images[0].numpy()).save(path)
    return path


def test_predict_prints_the_digit_with_its_scores(served: RunningServer, seven: Path) -> None:
    done = run_client("predict", seven, address=served.address)
    assert done.returncode == 0, done.stderr
    assert f"{seven}: 7" in done.stdout.replace("\n", "")
    bars = [line for line in done.stdout.splitlines() if "██████████████████ " in line]
    assert len(bars) == 1, "the best class alone has a long bar"
    assert "relu" not in done.stdout


def test_pictures_get_the_digits_of_eager_torch(
    served: RunningServer, mnist: Data, eager: Runner, test_pixels: np.ndarray, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(20)]
    for path, image in zip(paths, mnist.test.images.numpy(), strict=False):
        Image.fromarray(image).save(path)
    done = run_client("predict", *paths, "--json", address=served.address)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["file"] for record in records] == [str(path) for path in paths]
    labels = [int(record["label"]) for record in records]
    assert labels == eager.predict(test_pixels[:20]).argmax(axis=1).tolist()


@pytest.mark.parametrize("command", [("predict", "--trace"), ("trace",)])
def test_a_trace_prints_every_stage_in_80_columns(
    served: RunningServer, seven: Path, command: tuple[str, ...]
) -> None:
    done = run_client(command[0], seven, *command[1:], address=served.address)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0] in STAGES] == STAGES
    linear1 = next(row for row in rows if row and row[0] == "linear1")
    assert linear1[1:4] == ["[1,", "128]", "200,704"]
    assert "…" not in done.stdout, "the table must fit 80 columns"


def test_json_of_a_trace_has_logits_and_stages(
    served: RunningServer, seven: Path, client: ForwardClient
) -> None:
    done = run_client("predict", seven, "--json", "--trace", address=served.address)
    (record,) = [json.loads(line) for line in done.stdout.splitlines()]
    logits = client.predict(np.asarray(Image.open(seven))).logits[0]
    assert list(record["logits"].values()) == logits.tolist()
    assert record["label"] == "7"
    assert [stage["name"] for stage in record["trace"]["stages"]] == STAGES
    assert record["trace"]["stages"][3]["statistics"]["zero_share"] > 0.5


def test_several_images_of_a_file_are_listed(
    served: RunningServer, mnist: Data, tmp_path: Path
) -> None:
    np.save(tmp_path / "five.npy", mnist.test.images[:5].numpy())
    done = run_client("predict", tmp_path / "five.npy", address=served.address)
    rows = [line.replace("│", " ").split() for line in done.stdout.splitlines() if "│" in line]
    assert [row[:2] for row in rows] == [[str(i), str(d)] for i, d in enumerate([7, 2, 1, 0, 4])]


@pytest.fixture(scope="module")
def narrow(transport: str) -> Iterator[RunningServer]:
    """A server that takes four images in a request."""
    with start_server("--max-batch-images", "4", "--transport", transport) as server:
        yield server


@pytest.mark.parametrize("flags", [(), ("--trace",)])
def test_a_large_file_is_sent_in_several_requests(
    narrow: RunningServer, client: ForwardClient, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    images = random_images(10, (28, 28))
    np.save(tmp_path / "ten.npy", images)
    done = run_client("predict", tmp_path / "ten.npy", "--json", *flags, address=narrow.address)
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["index"] for record in records] == list(range(10))
    logits = np.array([list(record["logits"].values()) for record in records], np.float32)
    np.testing.assert_array_equal(logits, client.predict(images).logits)
    traced = [record["index"] for record in records if "trace" in record]
    assert traced == ([0, 4, 8] if flags else [])  # a trace is of one request


def test_a_large_file_is_printed_as_one_table(
    narrow: RunningServer, mnist: Data, tmp_path: Path
) -> None:
    np.save(tmp_path / "nine.npy", mnist.test.images[:9].numpy())
    done = run_client("trace", tmp_path / "nine.npy", address=narrow.address)
    rows = [line.replace("│", " ").split() for line in done.stdout.splitlines() if "│" in line]
    digits = [7, 2, 1, 0, 4, 1, 4, 9, 5]
    assert [row[:2] for row in rows] == [[str(i), str(d)] for i, d in enumerate(digits)]
    shapes = [line.split() for line in done.stdout.splitlines() if "linear1" in line]
    assert [words[1] for words in shapes] == ["[4,", "[4,", "[1,"]


def test_a_warning_stands_beside_the_answer(served: RunningServer, tmp_path: Path) -> None:
    sheet = Image.new("L", (400, 400), 255)
    ImageDraw.Draw(sheet).line((120, 80, 280, 80, 180, 320), fill=0, width=2)
    sheet.save(tmp_path / "thin.png")
    done = run_client("predict", tmp_path / "thin.png", "--json", address=served.address)
    (record,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert record["label"] == "7"
    (warning,) = record["warnings"]
    assert "strokes are thin" in warning
    assert done.stderr == f"python -m client: {tmp_path}/thin.png: hard to read: {warning}\n"


def test_health_is_printed_and_is_the_exit_status(served: RunningServer, bundle: Bundle) -> None:
    command = [sys.executable, "-W", "error", "-m", "client", "health", "--address", served.address]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SERVING\n", "")
    done = run_client("health", "--service", "x", address=served.address)
    assert done.returncode == 1
    assert "no service 'x'" in done.stderr
    with (
        start_held_server(bundle) as held,
        ForwardClient(held.address) as caller,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(caller.predict, random_images(1, (28, 28)))
        assert held.runner.started.acquire(timeout=10)
        drained = held.drain(30)
        done = run_client("health", address=held.address)
        held.runner.let_go.set()
        running.result(10)
        drained.result(10)
    assert (done.returncode, done.stdout) == (1, "NOT_SERVING\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "nowhere.png"), "nowhere.png: can't be read"),
        (("predict", "README.md"), "README.md: can't be read as a picture"),
        (
            ("predict", "x.png", "--timeout", "0"),
            "--timeout: expected seconds above 0 and at most 86400, got '0'",
        ),
        (
            ("predict", "x.png", "--timeout", "x"),
            "--timeout: expected seconds above 0 and at most 86400, got 'x'",
        ),
        (("health", "--address", "localhost"), "expected host:port, got 'localhost'"),
        (("predict",), "IMAGE"),
        (("guess",), "invalid choice: 'guess'"),
    ],
)
def test_a_wrong_call_is_one_clear_line(
    served: RunningServer, arguments: tuple[str, ...], message: str
) -> None:
    address = "" if "--address" in arguments else served.address
    done = run_client(*arguments, address=address)
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_named(seven: Path) -> None:
    done = run_client("predict", seven, address="localhost:1")
    assert done.returncode == 1
    started = "no server answers at localhost:1; start one with 'make serve' in a checkout"
    assert f"{started} or with 'forward-server'" in done.stderr


def test_the_timeout_is_the_one_that_was_set(bundle: Bundle, seven: Path) -> None:
    with start_held_server(bundle) as held:
        started = time.monotonic()
        done = run_client("predict", seven, "--timeout", "0.3", address=held.address)
    assert time.monotonic() - started < 8, "10 s is the default"
    assert done.returncode == 1
    assert f"no response from {held.address} within 0.3 s" in done.stderr


@pytest.mark.parametrize(("command", "seconds"), [("predict", 10), ("compare", 60)])
def test_a_command_waits_as_long_as_its_help_says(command: str, seconds: int) -> None:
    options = command_line._parser().parse_args([command, "x.png"])
    with command_line._connect(options) as client:
        assert client._timeout == seconds


def test_a_refused_image_is_explained(served: RunningServer, tmp_path: Path) -> None:
    np.save(tmp_path / "wrong.npy", np.full((28, 28), 255.0, np.float32))
    done = run_client("predict", tmp_path / "wrong.npy", address=served.address)
    assert done.returncode == 1
    assert "send UINT8 or divide by 255" in done.stderr


def test_the_errors_of_the_library_carry_every_violation(client: ForwardClient) -> None:
    with pytest.raises(ForwardError) as refused:
        client.trace(np.full((1, 28, 27), np.nan), ["softmax"])
    assert [field for field, _ in refused.value.violations] == [
        "images.shape",
        "images.data",
        "stages[0].name",
    ]
    assert refused.value.retry_seconds is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_all_floating_images_are_sent_as_float32(client: ForwardClient, dtype: str) -> None:
    images = (random_images(2, (28, 28)) > 0.5).astype(dtype)
    expected = client.predict((images * 255).astype(np.uint8)).logits
    np.testing.assert_array_equal(client.predict(images).logits, expected)


def test_images_of_another_type_are_not_sent(client: ForwardClient) -> None:
    with pytest.raises(TypeError, match=r"expected uint8 .* got int64"):
        client.predict(np.zeros((1, 28, 28), np.int64))


def test_meaningless_arguments_are_refused_before_the_call(client: ForwardClient) -> None:
    image = random_images(1, (28, 28))
    with pytest.raises(
        TypeError, match=r"expected a sequence of stages, got 'relu'; write \['relu'\]"
    ):
        client.trace(image, "relu")
    with pytest.raises(
        ValueError, match="expected a detail of statistics, full, top_k, units, got 'FULL'"
    ):
        client.trace(image, {"relu": "FULL"})  # type: ignore[dict-item] # that is the question


def test_a_closed_pipe_ends_the_command_silently(served: RunningServer, seven: Path) -> None:
    command = [sys.executable, "-m", "client", "predict", *[str(seven)] * 50, "--json"]
    with subprocess.Popen(
        [*command, "--address", served.address],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == -signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_probabilities_are_the_softmax_of_the_logits(client: ForwardClient) -> None:
    prediction = client.predict(random_images(4, (28, 28)))
    exponentials = np.exp(prediction.logits.astype(np.float64))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-9)
    np.testing.assert_array_equal(prediction.classes, prediction.logits.argmax(axis=1))


def test_a_stream_answers_each_batch_like_a_call(
    client: ForwardClient,
) -> None:
    batches = [random_images(count, (28, 28), seed=count) for count in (1, 70, 2)]
    wrong = np.zeros((2, 3, 3), np.float32)
    found = list(client.predict_stream(iter([*batches[:2], wrong, batches[2]])))
    assert isinstance(found[2], ForwardError)
    assert found[2].code == "INVALID_ARGUMENT"
    assert found[2].violations[0][0] == "images.shape"
    predictions = [one for one in found if not isinstance(one, ForwardError)]
    for batch, prediction in zip(batches, predictions, strict=True):
        assert prediction.logits.tobytes() == client.predict(batch).logits.tobytes()


def test_an_error_of_the_batches_reaches_the_caller(client: ForwardClient) -> None:
    with pytest.raises(TypeError, match="got int64"):
        list(client.predict_stream([np.zeros((28, 28), np.int64)]))

    def batches() -> Iterator[np.ndarray]:
        yield np.zeros((28, 28), np.uint8)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(client.predict_stream(batches()))
    assert not list(client.predict_stream([]))


def test_a_stream_to_nobody_says_so() -> None:
    with (
        ForwardClient("127.0.0.1:1", timeout_seconds=5) as caller,
        pytest.raises(ForwardError, match="no server answers at") as failed,
    ):
        list(caller.predict_stream([np.zeros((28, 28), np.uint8)]))
    assert failed.value.code == "UNAVAILABLE"


def test_the_library_lists_its_public_names() -> None:
    code = "import forward_client; print(*dir(forward_client))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )  # a process of its own: none of them is imported yet
    assert set(forward_client.__all__) <= set(done.stdout.split())
