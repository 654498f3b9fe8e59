"""Pages of the documentation, whose code blocks run one after the other in a copy of the checkout.

A block is `sh` or `python`. One that can't run here has `<!-- skip: next "REASON" -->` before it;
`text` is output, not code. The commands are those of the page, except for ports: a server takes
free ones, and what calls `localhost:8000`, 8001 or 8002 reaches it. A `print(...)  # TEXT` must
print the text.
"""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import SkipTest

import psutil
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from tests.support.bundles import MODELS_DIR, REPOSITORY
from tests.support.servers import RunningServer

BLOCK_SECONDS = 200
END_SECONDS = 40
FENCE = re.compile(r"^ *```(\w*)$(?P<text>.*?)^ *```$", re.M | re.S)
LANGUAGES = ("sh", "python")
PORTS = {8000: "http_port", 8001: "grpc_port", 8002: "metrics_port"}
PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.M)
# `make serve` goes on in the background, ready when the next command runs. No target installs.
# What `make test` gave its own children, ARGS above all, is not for this make.
PRELUDE = """
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL ARGS
make() {
  set -- --assume-old=.venv/.serve --assume-old=.venv/.train --assume-old=.venv/.develop "$@"
  if [[ " $* " != *" serve "* ]]; then command make "$@"; return; fi
  command make "$@" 2> "$SERVER_LOG" &
  until grep -qs '"event": "ready"' "$SERVER_LOG"; do
    kill -0 $! || { cat "$SERVER_LOG" >&2; return 1; }
    sleep 0.05
  done
}
"""


@dataclass(frozen=True)
class Address:
    """Where a server of a page listens."""

    ready: dict[str, Any]  # what its log says when it is
    pid: int

    @property
    def grpc_port(self) -> int:
        return int(self.ready["grpc_port"])

    def put_into(self, source: str) -> str:
        """Return a block that calls this server where the page calls the documented one."""
        for documented, name in PORTS.items():
            source = source.replace(f"localhost:{documented}", f"localhost:{self.ready[name]}")
        return re.sub(r"\bPID\b", str(self.pid), source)


class Page:
    """A page, and the folder that its blocks run in."""

    def __init__(self, path: Path, folder: Path, served: RunningServer, triton_python: str) -> None:
        self._folder, self._triton_python = folder, triton_python
        self._address = Address(served.ready, served.process.pid)
        self._sessions: list[subprocess.Popen[bytes]] = []
        self.skipped: list[str] = []  # the reasons
        self.ran = 0
        parsers = (
            CodeBlockParser(language="sh", evaluator=self._run_shell),
            CodeBlockParser(language="python", evaluator=self._run_python),
            SkipParser(),
        )
        self._document = Document.parse(str(path), *parsers)
        make_checkout(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the servers that the page started."""
        for session in self._sessions:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session.pid, signal.SIGTERM)
        for session in self._sessions:
            _, left = psutil.wait_procs(members(session.pid), timeout=END_SECONDS)
            for process in left:
                process.kill()
            assert not left, "a server of the page did not end after SIGTERM"

    def run(self) -> None:
        """Run every block that is not marked, in order.

        Raises:
            AssertionError: a block failed, printed something else, or is marked without a reason.
        """
        for example in self._document.examples():
            done = self.ran + len(self.skipped)
            try:
                example.evaluate()
            except SkipTest as reason:
                self.skipped.append(str(reason))
            if isinstance(example.parsed, str):  # a block, not a mark
                assert self.ran + len(self.skipped) == done + 1, f"{where(example)}: skipped: why?"

    def _run_shell(self, example: Example) -> None:
        self.ran += 1
        log = self._folder / f"server-{example.line}.log"
        output = self._folder / f"block-{example.line}.out"
        environment = {
            **os.environ,
            "PATH": f"{self._folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SERVER_LOG": str(log),
            "FORWARD_GRPC_PORT": "0",
            "FORWARD_HTTP_PORT": "0",
            "FORWARD_METRICS_PORT": "0",
            "FORWARD_LOG_FORMAT": "json",
            "FORWARD_CLIENT_ADDRESS": f"localhost:{self._address.grpc_port}",
        }
        source = PRELUDE + self._address.put_into(example.parsed)
        with output.open("wb") as file:
            session = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", source],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions.append(session)
        status = session.wait(BLOCK_SECONDS)
        assert status == 0, f"{where(example)}: exit status {status}\n{output.read_text()}"
        if log.exists():
            self._address = started(log, session.pid)

    def _run_python(self, example: Example) -> None:
        self.ran += 1
        source = self._address.put_into(example.parsed)
        if "tritonclient" in source:
            command = [self._triton_python, "-I", "-c", source]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{where(example)}: {done.stderr}"
            printed = done.stdout
        else:
            lines = "\n" * (example.line + example.parsed.line_offset)
            code = compile(lines + source, example.path, "exec", dont_inherit=True)
            with contextlib.redirect_stdout(io.StringIO()) as file, contextlib.chdir(self._folder):
                exec(code, example.namespace)  # noqa: S102 (the documentation's own code)
            printed = file.getvalue()
        for promised in PRINTED.findall(source):
            assert promised in printed, f"{where(example)}: expected {promised!r} in {printed!r}"


def where(example: Example) -> str:
    return f"{example.path}:{example.line}"


def started(log: Path, session: int) -> Address:
    """Return the address of the server that a block has started."""
    ready = next(line for line in log.read_text().splitlines() if '"event": "ready"' in line)
    entry = json.loads(ready)
    (server,) = [each for each in members(session) if "server" in each.cmdline()]
    return Address(entry, server.pid)


def members(session: int) -> list[psutil.Process]:
    """Return the processes of a session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def make_checkout(folder: Path) -> None:
    """Fill a folder with links to the checkout; what commands write to is a copy, or missing."""
    for entry in REPOSITORY.iterdir():
        if not entry.name.startswith(".") and entry.name not in ("models", "data"):
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv").symlink_to(sys.prefix)
    shutil.copytree(MODELS_DIR, folder / "models")
    (folder / "bin").mkdir()
    if shutil.which("grpcurl") is None:
        program = folder / "bin" / "grpcurl"
        module = REPOSITORY / "tests" / "support" / "grpcurl.py"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{module}" "$@"\n')
        program.chmod(0o755)


def unknown_blocks(path: Path) -> list[str]:
    """Return the languages of blocks that would neither run nor be marked."""
    text = path.read_text()
    found = []
    for match in FENCE.finditer(text):
        is_marked = text[: match.start()].rstrip().endswith("-->")
        if match[1] not in (*LANGUAGES, "text") and not is_marked:
            found.append(match[1])
    return found
