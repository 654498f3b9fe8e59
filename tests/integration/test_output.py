"""Standard output that can't take what is printed: nothing but the print is lost."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import export.output
import forward_client.output
from export.bundle import Bundle, open_bundle
from export.output import make_console
from tests.support.bundles import MODELS_DIR, REPOSITORY, random_images
from tests.support.commands import run_client
from tests.support.servers import RunningServer
from tests.support.trainings import epoch, training_command
from training.config import Recipe
from training.data import Data, load
from training.progress import Terminal
from training.trainer import Trainer

pytestmark = pytest.mark.one_transport

VERIFY = [sys.executable, "-m", "export", "verify", str(MODELS_DIR / "mnist/1"), "--runtime=onnx"]
DIGIT = REPOSITORY / "docs" / "digit.png"
# None of them has the blocks of which bars, charts and pictures are made.
POOR_ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


def run(
    command: Sequence[str | Path], stdout: int | IO[bytes] = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


def calling(server: RunningServer, *arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "client", *arguments, "--address", server.address]


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits", Path(), None)


def small_training(models_dir: Path) -> list[str | Path]:
    arguments = ("--dataset", "digits", "--epochs", "1", "--hidden", "1")
    return training_command(*arguments, "--models-dir", models_dir)


@contextmanager
def broken_pipe() -> Iterator[int]:
    """Give the writing end of a pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


def is_published(models_dir: Path) -> bool:
    open_bundle(models_dir / "digits" / "1").verify_files()
    return not list((models_dir / "digits").glob(".*"))


@pytest.mark.parametrize("encoding", POOR_ENCODINGS, ids=str)
def test_the_client_draws_with_the_characters_there_are(
    served: RunningServer, encoding: dict[str, str]
) -> None:
    done = run(calling(served, "predict", DIGIT, "--trace"), subprocess.PIPE, **encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    printed = done.stdout.decode("ascii")
    assert "?" not in printed
    assert printed.count(" #######") == 1, "the best class alone has a long bar"
    assert "@@@" in printed, "the picture of the digit"


def test_a_chart_uses_the_characters_of_its_encoding(digits: Data) -> None:
    trainer = Trainer(Recipe(dataset="digits", epochs=2), digits)
    drawn = io.BytesIO()
    terminal = Terminal(Console(file=io.TextIOWrapper(drawn, encoding="ascii")), trainer)
    with terminal.live():
        terminal.on_epoch_end(epoch(1, 1.0, 0.5))
        terminal.on_epoch_end(epoch(2, 0.5, 0.75))
    lines = drawn.getvalue().decode("ascii").splitlines()
    assert lines[-1] == "#" * 36 + "." * 36, "the lowest is an eighth of a row"
    assert lines[-8].rstrip() == "#" * 36


def test_the_console_takes_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("models/[red]/:warning:/1")
    assert capsys.readouterr().out == "models/[red]/:warning:/1\n"


@pytest.mark.parametrize("module", ["client", "export", "server", "training"])
def test_help_needs_no_more_than_ascii(module: str) -> None:
    done = run([sys.executable, "-m", module, "--help"], PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"--" in done.stdout


def test_training_publishes_though_nobody_can_read_it(tmp_path: Path) -> None:
    """Its reader is gone, and the encoding lacks a letter of the folder."""
    models_dir = tmp_path / "mödels"
    with broken_pipe() as pipe:
        done = run(small_training(models_dir), pipe, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert is_published(models_dir)


def test_training_publishes_on_a_full_disk_of_its_output(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(small_training(tmp_path), full)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert "standard output can't be written: No space left on device" in line
    assert is_published(tmp_path)


@pytest.mark.parametrize(
    "arguments", [("predict", DIGIT), ("predict", DIGIT, "--json"), ("health",)]
)
def test_a_full_disk_is_one_line_of_the_client(
    served: RunningServer, arguments: tuple[str | Path, ...]
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(calling(served, *arguments), full, PYTHONUNBUFFERED="")
    assert done.returncode == 1
    expected = "python -m client: standard output can't be written: No space left on device\n"
    assert done.stderr.decode() == expected


def test_the_client_ends_quietly_for_a_closed_pipe(served: RunningServer) -> None:
    with broken_pipe() as pipe:
        done = run(calling(served, "predict", DIGIT, "--trace"), pipe)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_verify_judges_also_where_it_can_not_print() -> None:
    with broken_pipe() as pipe:
        done = run(VERIFY, pipe)
    assert (done.returncode, done.stderr) == (0, b"")
    with Path("/dev/full").open("wb") as full:
        done = run(VERIFY, full)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    with Path("/dev/full").open("wb") as full:
        done = run([*VERIFY[:4], "nowhere"], full)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_comparison_is_recorded_without_output(tiny: Bundle) -> None:
    command = [*VERIFY[:3], "compare", str(tiny.path), "--runtime=onnx", "--device=cpu", "--record"]
    with Path("/dev/full").open("wb") as full:
        done = run(command, full)
    assert done.returncode == 1
    assert "standard output can't be written" in done.stderr.decode()
    assert [record.runtime for record in open_bundle(tiny.path).manifest.parity] == ["onnx"]


def test_images_of_any_file_name_are_compared(tiny: Bundle, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\x1b.npy")
    with path.open("wb") as file:
        np.save(file, random_images(2, (3, 5)))
    done = run(
        [*VERIFY[:3], "compare", str(tiny.path), "--runtime=onnx", "--images", path, "--json"]
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["image_set"].startswith(r"\udcff\x1b.npy ")


def test_a_file_never_gets_the_number_of_closed_output() -> None:
    """What a library then printed to descriptor 1 or 2 would go into that file."""
    source = (
        "import os; from export.output import run_command\n"
        "def main():\n    print('lost'); return os.open('/dev/zero', os.O_RDONLY)\n"
        "raise SystemExit(run_command('x', main))"
    )
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    done = run(["sh", "-c", command, sys.executable, source])
    assert done.returncode > 2


def test_a_slow_reader_that_does_not_block_gets_everything() -> None:
    source = (
        "import sys; from export.output import run_command\n"
        "raise SystemExit(run_command('x', lambda: print('x' * 2_000_000) or 0))"
    )
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(
        [sys.executable, "-c", source], cwd=REPOSITORY, stdout=writing
    ) as process:
        os.close(writing)
        with open(reading, "rb") as reader:  # noqa: PTH123 (a descriptor)
            assert len(reader.read()) == 2_000_001
    assert process.returncode == 0


NAMES = {
    "[red]x[/red].png": "[red]x[/red].png",
    "[/].png": "[/].png",
    ":warning:.png": ":warning:.png",
    "\x1b[31mred.png": r"\x1b[31mred.png",
    "two\nlines.png": r"two\nlines.png",
    "\u202egnp.exe": r"\u202egnp.exe",  # would be shown from right to left
    os.fsdecode(b"\xff.png"): r"\udcff.png",
}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_control_characters_of_file_names_are_escaped(
    served: RunningServer, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DIGIT.read_bytes())
    colored = {"FORCE_COLOR": "1"}
    done = run_client("predict", path, address=served.address, columns=200, variables=colored)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/{NAMES[name]}: " in done.stdout
    path.write_bytes(b"no picture")
    done = run_client("predict", path, address=served.address)
    assert f"{tmp_path}/{NAMES[name]}: can't be read as a picture" in done.stderr


@pytest.mark.parametrize("name", ["[red]x.npy", "[b].npy", ":warning:.npy"])
def test_the_title_of_a_table_is_no_markup(
    served: RunningServer, tmp_path: Path, name: str
) -> None:
    np.save(tmp_path / name, random_images(2, (28, 28)))
    done = run_client("predict", tmp_path / name, address=served.address)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout.replace("\n", "")  # a title breaks at the table's width


@pytest.mark.parametrize("printable", [forward_client.output.printable, export.output.printable])
@given(text=st.text(st.characters()))
def test_only_what_is_not_printable_is_escaped(printable: Callable[[str], str], text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()
