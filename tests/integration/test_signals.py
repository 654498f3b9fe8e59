"""Signals end every command, from its first line on, also where it is process 1."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.bundles import REPOSITORY
from tests.support.servers import wait_until

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
SERVER = (
    "server",
    "--grpc-port",
    "0",
    "--http-port",
    "0",
    "--metrics-port",
    "0",
    "--log-format",
    "json",
)
COMMANDS = (
    SERVER,
    ("client", "health", "--address", "localhost:1"),
    ("export", "verify", "models/mnist/1"),
    ("training", "--dataset", "digits"),
)
PACKAGES = [command[0] for command in COMMANDS]
CONSOLE = {"server": "server", "client": "client", "export": "export", "training": "train"}


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Skip where processes may not have numbers of their own."""
    try:
        done = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare, of util-linux")
    if done.returncode:
        pytest.skip(f"needs the right to make a PID namespace: {done.stderr.strip()}")


@contextmanager
def started(
    command: Sequence[str], log_path: Path, *, first: bool, console: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a command, as process 1 or not; yield it with its number in this namespace."""
    # A shell's background job, as these tests may be one, ignores SIGINT and passes that on.
    program = [sys.executable, "-m", command[0]]
    if console:
        program = [str(Path(sys.executable).parent / f"forward-{CONSOLE[command[0]]}")]
    words = ["env", "--default-signal=INT", *program, *command[1:]]
    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            [*NAMESPACE, *words] if first else words, cwd=REPOSITORY, stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield process, only_child(process.pid) if first else process.pid
        finally:
            process.kill()


def only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: bool(children.read_text()))
    return int(children.read_text())


def handled(pid: int, number: signal.Signals) -> bool:
    """Tell if a process has a handler for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(mask, 16) & 1 << (number - 1))


def has_libraries(pid: int) -> bool:
    """Tell if a process has come to the imports that take a while."""
    loaded = Path(f"/proc/{pid}/maps").read_text()
    return any(name in loaded for name in ("numpy", "uvloop", "pydantic_core", "cygrpc"))


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", COMMANDS, ids=PACKAGES)
def test_process_1_takes_a_signal_before_its_imports(
    command: Sequence[str], number: signal.Signals, tmp_path: Path
) -> None:
    log_path = tmp_path / "log"
    with started(command, log_path, first=True) as (process, pid):
        wait_until(lambda: handled(pid, signal.SIGTERM) or has_libraries(pid))
        assert handled(pid, signal.SIGTERM), "it is not the first thing"
        wait_until(lambda: handled(pid, number))
        os.kill(pid, number)
        assert process.wait(20) == 128 + number
    assert "Traceback" not in log_path.read_text()
    assert '"ready"' not in log_path.read_text()


@pytest.mark.parametrize("console", [False, True], ids=["module", "console"])
@pytest.mark.parametrize("command", COMMANDS, ids=PACKAGES)
def test_an_interrupt_during_the_imports_shows_no_traceback(
    command: Sequence[str], tmp_path: Path, *, console: bool
) -> None:
    log_path = tmp_path / "log"
    with started(command, log_path, first=False, console=console) as (process, pid):
        wait_until(lambda: has_libraries(pid))
        os.kill(pid, signal.SIGINT)
        # The client may have come to its end by then.
        assert process.wait(20) in {-signal.SIGINT, 1 if command[0] == "client" else None}
    assert "Traceback" not in log_path.read_text()


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_draining_process_1(second: signal.Signals, tmp_path: Path) -> None:
    log_path = tmp_path / "log"
    command = (*SERVER, "--drain-delay", "60")
    with started(command, log_path, first=True) as (process, pid):
        wait_until(lambda: '"ready"' in log_path.read_text(), 60)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: '"draining"' in log_path.read_text())
        time.sleep(0.2)
        os.kill(pid, second)
        assert process.wait(20) == 128 + second
    assert "Traceback" not in log_path.read_text()


@pytest.mark.usefixtures("namespaces")
def test_process_1_drains_at_the_first_signal(tmp_path: Path) -> None:
    log_path = tmp_path / "log"
    with started(SERVER, log_path, first=True) as (process, pid):
        wait_until(lambda: '"ready"' in log_path.read_text(), 60)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(20) == 0
    assert '"stopped"' in log_path.read_text()


def test_an_ignored_interrupt_stays_ignored_until_serving(tmp_path: Path) -> None:
    """As of a command that a shell runs in the background."""
    words = ["env", "--ignore-signal=INT", sys.executable, "-m", *SERVER]
    log_path = tmp_path / "log"
    with (
        log_path.open("wb") as log,
        subprocess.Popen(words, cwd=REPOSITORY, stderr=log) as process,
    ):
        try:
            wait_until(lambda: has_libraries(process.pid))  # env has become Python by then
            process.send_signal(signal.SIGINT)
            wait_until(lambda: '"ready"' in log_path.read_text(), 60)
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
