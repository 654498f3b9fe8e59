"""The log takes nothing along: what can't be written is dropped and counted, and calls go on."""

import asyncio
import fcntl
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from bench.scenarios.drain import drain
from export.bundle import Bundle
from forward_client import ForwardClient
from server.observability.lines import MAX_TOGETHER, MAX_WAITING, LineWriter, StandardError
from server.observability.logging import configure_logs
from server.observability.metrics import ServerMetrics
from server.observability.supervision import report_unhandled_failures
from tests.support.bundles import REPOSITORY, publish_random_bundle, random_images
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.servers import (
    RunningServer,
    handled,
    metric,
    scrape,
    server_command,
    wait_until,
)

PAGE_BYTES = 4096  # the smallest pipe


@contextmanager
def logging_of_its_own() -> Iterator[None]:
    """Put away the handlers of pytest, and put back what `configure_logs` changes."""
    before, root = sys.stderr, logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        sys.stderr, root.handlers = before, handlers
        structlog.reset_defaults()


def full_pipe() -> tuple[int, int]:
    """Return the ends of a pipe that takes no byte more."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PAGE_BYTES)
    os.write(write_end, b"x" * (PAGE_BYTES - 1) + b"\n")
    return read_end, write_end


@dataclass
class Stderr:
    """Where a server writes its log, and what the shell does to that."""

    descriptor: int
    redirection: str = ""


@contextmanager
def reader_gone() -> Iterator[Stderr]:
    read_end, write_end = os.pipe()
    os.close(read_end)
    yield Stderr(write_end)
    os.close(write_end)


@contextmanager
def disk_full() -> Iterator[Stderr]:
    with Path("/dev/full").open("wb") as full:
        yield Stderr(full.fileno())


@contextmanager
def closed() -> Iterator[Stderr]:
    yield Stderr(2, "2>&-")


@contextmanager
def never_read() -> Iterator[Stderr]:
    ends = full_pipe()
    yield Stderr(ends[1])
    for end in ends:
        os.close(end)


@contextmanager
def serving(stderr: Stderr, *arguments: str) -> Iterator[RunningServer]:
    """Start a server whose log says nothing that a test could read."""
    ports = {"grpc_port": free_port(), "metrics_port": free_port()}
    numbers = ("--grpc-port", str(ports["grpc_port"]), "--metrics-port", str(ports["metrics_port"]))
    command = server_command((*numbers, "--device", "cpu", *arguments))
    with subprocess.Popen(
        ["sh", "-c", f'exec "$@" {stderr.redirection}', "sh", *command],
        cwd=REPOSITORY,
        stderr=stderr.descriptor,
    ) as process:
        server = RunningServer(process, Path(os.devnull), ports)
        try:
            wait_until(lambda: process.poll() is not None or takes_connections(server), 60)
            assert process.poll() is None, "it did not start"
            yield server
        finally:
            process.kill()


def takes_connections(server: RunningServer) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", server.ready["grpc_port"])).close()
        return True
    return False


@pytest.mark.parametrize("place", [reader_gone, disk_full, closed, never_read])
def test_a_server_without_log_reloads_and_drains(
    tiny: Bundle, place: Callable[[], AbstractContextManager[Stderr]]
) -> None:
    folder = ("--models-dir", str(tiny.path.parent.parent), "--model", "tiny")
    with (
        place() as stderr,
        serving(stderr, *folder) as server,
        ForwardClient(server.address, timeout_seconds=30) as client,
    ):
        for version in (2, 3):
            publish_random_bundle(tiny.path.parent.parent, "tiny")
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda version=version: client.model().version == version)  # type: ignore[misc] # mypy cannot infer the type of a lambda with a default
        assert client.predict(random_images(1, (3, 5))).model_version == 3
        if place is not never_read:  # there they wait
            assert metric(server, "forward_log_lines_dropped_total") >= 4
        assert metric(server, "forward_model_last_reload_successful") == 1
        assert set(failures(server).values()) == {0.0}
        assert server.stop() == 0


def failures(server: RunningServer) -> dict[str, float]:
    return {
        dict(labels)["task"]: value
        for (name, labels), value in scrape(server).items()
        if name == "forward_background_failures_total"
    }


@pytest.mark.parametrize("place", [reader_gone, disk_full, closed, never_read])
def test_an_access_log_that_nobody_gets_holds_up_no_call(
    place: Callable[[], AbstractContextManager[Stderr]],
) -> None:
    calls = MAX_WAITING + MAX_TOGETHER + 100
    with (
        place() as stderr,
        serving(stderr, "--access-log", "1") as server,
        ForwardClient(server.address, timeout_seconds=30) as client,
    ):
        for _ in range(calls):
            client.model()  # not of the native transport's lane
        wait_until(lambda: metric(server, "forward_log_lines_dropped_total") >= 100)
        assert client.model().version == 1
        assert handled(server, "GetModel", "OK") == calls + 1
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_grpcs_own_lines_never_block_the_server(
    tmp_path: Path,
) -> None:
    """It writes one for each handshake that fails, and waited until somebody read it."""
    authority = Authority(tmp_path / "ca")
    pair = authority.issue()
    with never_read() as stderr, serving(stderr, *pair.arguments()) as server:
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", server.ready["grpc_port"])) as caller:
                caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
                caller.settimeout(20)
                with suppress(ConnectionResetError):
                    while caller.recv(1000):
                        pass
        address = f"localhost:{server.ready['grpc_port']}"
        with ForwardClient(address, timeout_seconds=30, tls=authority.tls()) as client:
            assert client.predict(random_images(1, (28, 28))).model_version == 1
        assert server.stop() == 0


def test_a_closed_log_loses_no_call_in_drain() -> None:
    seen = drain(0.0, closes_log=True)
    assert seen.holds, seen


def test_a_failed_start_with_full_log_exits_1(tmp_path: Path) -> None:
    for arguments, status in ((("--models-dir", str(tmp_path)), 1), (("--grpc-port", "x"), 2)):
        with disk_full() as stderr:
            done = subprocess.run(
                server_command(arguments), cwd=REPOSITORY, stderr=stderr.descriptor, check=False
            )
        assert done.returncode == status


def test_a_closed_streams_descriptor_is_not_reused() -> None:
    show = (
        "import os, server.start as s; s.prepare_process(); print(os.readlink('/proc/self/fd/2'))"
    )
    command = ["sh", "-c", 'exec "$@" 0<&- 2>&-', "sh", sys.executable, "-c", show]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == os.devnull


def test_an_unread_log_blocks_no_writer() -> None:
    read_end, write_end = full_pipe()
    lines = LineWriter(write_end)
    texts = [f"{number:06} {'y' * 200}\n" for number in range(MAX_WAITING + 500)]
    for text in texts:
        lines.write(text)
    assert 500 - MAX_TOGETHER <= lines.dropped <= 500, "the thread has some in its hands"
    kept = "".join(texts[: len(texts) - lines.dropped])
    out = b""
    while len(out) < PAGE_BYTES + len(kept):
        out += os.read(read_end, 1 << 16)
    assert out[PAGE_BYTES:].decode() == kept
    lines.flush()
    os.close(read_end)


def test_a_line_cut_by_a_full_disk_ends(tmp_path: Path) -> None:
    """The limit of a file's size stands in for the disk, in a process of its own."""
    path = tmp_path / "log"
    script = f"""
import os, resource, signal
from server.observability.lines import LineWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
lines = LineWriter(os.open({str(path)!r}, os.O_WRONLY | os.O_CREAT))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
lines.write("a" * 80 + "\\n"); lines.write("b" * 80 + "\\n"); lines.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
lines.write("c" * 80 + "\\n"); lines.flush()
print(lines.dropped)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    assert path.read_text().splitlines() == ["a" * 80, "b" * 19, "c" * 80]


def test_a_non_blocking_pipe_loses_no_line() -> None:
    read_end, write_end = full_pipe()
    os.set_blocking(write_end, False)
    lines = LineWriter(write_end)
    text = "z" * (3 * PAGE_BYTES) + "\n"
    lines.write(text)
    out = b""
    while len(out) < PAGE_BYTES + len(text):
        out += os.read(read_end, 1000)
    assert out[PAGE_BYTES:].decode() == text
    assert lines.dropped == 0


class Unprintable:
    """A value that has no text."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("form", ["json", "console"])
def test_anything_can_be_logged(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    lines = LineWriter(os.dup(2))
    with logging_of_its_own():
        sys.stderr = StandardError(lines, is_terminal=False)
        configure_logs("info", form)
        log = structlog.get_logger()
        log.info("unprintable", value=Unprintable())
        log.info("of bytes", value=os.fsdecode(b"\xff"))
        print("printed \udcff", file=sys.stderr)
        logging.getLogger("a.library").warning("warned of %d", 7)
        logging.getLogger("a.library").warning("warned of %d", "none")
        lines.flush()
    written = capfd.readouterr().err
    for text in ("unprintable", "of bytes", "printed", "warned of 7", "'warned of %d'"):
        assert text in written
    if form == "json":
        entries = [json.loads(line) for line in written.splitlines() if "printed \\" not in line]
        assert entries[0]["log_failure"] == "not rendered: RuntimeError"
        assert [entry["logger"] for entry in entries[2:]] == ["a.library"] * 2
    assert lines.dropped == 0


def test_failures_that_nobody_catches_are_counted_and_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # to be put back
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    metrics = ServerMetrics()

    def fail() -> None:
        raise RuntimeError("the cause")

    class Failing:
        def __del__(self) -> None:
            fail()

    async def fail_everywhere() -> None:
        report_unhandled_failures(metrics.count_failure)
        thread = threading.Thread(target=fail, name="a-thread")
        thread.start()
        thread.join()
        Failing()
        gc.collect()
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with logging_of_its_own():
        configure_logs("info", "json")
        asyncio.run(fail_everywhere())
    for task in ("thread", "destructor", "event_loop"):
        counted = metrics.registry.get_sample_value(
            "forward_background_failures_total", {"task": task}
        )
        assert counted == 1, task
    entries = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(entries) == 3
    for entry in entries:
        assert entry["exception"][0]["exc_value"] == "the cause"


def test_a_flush_does_not_wait_without_a_reader() -> None:
    read_end, write_end = full_pipe()
    lines = LineWriter(write_end)
    lines.write("a line\n")
    started = time.monotonic()
    lines.flush()
    assert time.monotonic() - started < 10
    with closing(os.fdopen(read_end, "rb")) as reader:  # lets the thread go on
        reader.read(PAGE_BYTES)
        lines.flush()
