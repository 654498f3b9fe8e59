"""Restart the replicas behind HAProxy one after the other, without a failed call.

Each is taken out of HAProxy, its calls end, COMMAND restarts it, its health check passes, it is put
back. {replica} in COMMAND is the name that haproxy.cfg gives it:

    rolling_restart.py -- ssh {replica} sudo systemctl restart forward

It ends with status 1 at the first replica that does not come back: the others serve on. It needs
Python 3.9 and nothing else, so this file alone can be copied to the machine of the proxy.
"""

from __future__ import annotations

import argparse
import csv
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

POLL_SECONDS = 0.1
ANSWER_SECONDS = 10  # of HAProxy itself
PLACEHOLDER = "{replica}"


class RestartError(Exception):
    """A replica cannot be restarted without a failed call, or did not come back."""


class Proxy:
    """HAProxy, by its admin socket."""

    def __init__(self, path: str, backend: str) -> None:
        self._path = path
        self._backend = backend

    def ask(self, command: str) -> str:
        """Return what it answers.

        Raises:
            RestartError: it is not there.
        """
        answer = b""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(ANSWER_SECONDS)
                connection.connect(self._path)
                connection.sendall(command.encode() + b"\n")
                while part := connection.recv(65536):
                    answer += part
        except OSError as error:
            raise RestartError(f"{self._path}: HAProxy cannot be asked: {error}") from error
        return answer.decode()

    def rows(self) -> list[dict[str, str]]:
        """Return the statistics of every replica in every backend."""
        lines = self.ask("show stat").lstrip("# ").splitlines()
        rows = csv.DictReader(line for line in lines if line)
        return [row for row in rows if row["svname"] not in {"FRONTEND", "BACKEND"}]

    def replicas(self) -> list[str]:
        """Return the names of the replicas.

        Raises:
            RestartError: there is no such backend.
        """
        names = [row["svname"] for row in self.rows() if row["pxname"] == self._backend]
        if not names:
            known = ", ".join(sorted({row["pxname"] for row in self.rows()})) or "none"
            raise RestartError(f"HAProxy has no backend {self._backend!r}; it has {known}")
        return names

    def status(self, replica: str) -> str:
        """Return UP, DRAIN, DOWN, MAINT, or one on its way, such as "DOWN 1/2"."""
        for row in self.rows():
            if row["pxname"] == self._backend and row["svname"] == replica:
                return row["status"]
        raise RestartError(f"HAProxy has no replica {replica!r} any more")

    def calls(self, replica: str) -> int:
        """Return how many calls it has now, in all backends."""
        return sum(int(row["scur"]) for row in self.rows() if row["svname"] == replica)

    def set(self, replica: str, what: str) -> None:
        """Change a replica.

        Raises:
            RestartError: HAProxy refuses.
        """
        answer = self.ask(f"set server {self._backend}/{replica} {what}").strip()
        if answer:
            raise RestartError(f"{replica}: HAProxy refuses {what!r}: {answer}")


def restart(proxy: Proxy, replica: str, options: argparse.Namespace) -> None:
    """Restart one replica.

    Raises:
        RestartError: no other would serve meanwhile, the command failed, or it is not up in time.
    """
    others = [each for each in proxy.replicas() if each != replica]
    if not any(proxy.status(each).startswith("UP") for each in others):
        raise RestartError(f"{replica}: no other replica is up; nobody would serve")
    began = time.monotonic()
    proxy.set(replica, "state drain")  # new calls go to the others
    try:
        if not _wait(lambda: proxy.calls(replica) == 0, options.drain_timeout):
            left = proxy.calls(replica)
            _say(f"{replica}: {left} calls go on; the replica's own drain bounds them")
        drained = time.monotonic()
        command = [word.replace(PLACEHOLDER, replica) for word in options.command]
        status = subprocess.run(command, check=False).returncode  # noqa: S603 (the operator's own)
        if status:
            raise RestartError(f"{replica}: {' '.join(command)} ended with status {status}")
        # What the checks said of the process before counts no more: they must pass anew.
        proxy.set(replica, "health down")
        if not _wait(lambda: proxy.status(replica) == "DRAIN", options.timeout):
            raise RestartError(
                f"{replica}: its health check does not pass within {options.timeout:g} s after "
                f"the restart; it is {proxy.status(replica)}"
            )
    finally:
        proxy.set(replica, "state ready")  # from here on the checks alone decide
    if not _wait(lambda: proxy.status(replica).startswith("UP"), options.timeout):
        raise RestartError(f"{replica}: is {proxy.status(replica)}, not UP")
    seconds = drained - began, time.monotonic() - drained
    _say(f"{replica}: up again; drained in {seconds[0]:.1f} s, back in {seconds[1]:.1f} s")


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Restart the replicas; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="rolling_restart.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--socket", default="/run/haproxy/admin.sock", help="HAProxy's admin socket (%(default)s)"
    )
    parser.add_argument(
        "--backend", default="forward_grpc", help="whose servers are the replicas (%(default)s)"
    )
    parser.add_argument(
        "--replica", action="append", help="restart this one only; may be given again"
    )
    parser.add_argument(
        "--drain-timeout",
        type=float,
        default=60,
        help="seconds that a replica's calls get to end before it is restarted (%(default)g)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=120,
        help="seconds that a replica gets to be healthy again (%(default)g)",
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="restarts {replica}")
    options = parser.parse_args(arguments)
    try:
        _restart_all(Proxy(options.socket, options.backend), options)
    except RestartError as error:
        _say(f"rolling_restart.py: {error}")
        return 1
    return 0


def _restart_all(proxy: Proxy, options: argparse.Namespace) -> None:
    replicas = proxy.replicas()
    for unknown in set(options.replica or ()) - set(replicas):
        raise RestartError(f"HAProxy has no replica {unknown!r}; it has {', '.join(replicas)}")
    for replica in options.replica or replicas:
        restart(proxy, replica, options)


if __name__ == "__main__":
    sys.exit(main())
