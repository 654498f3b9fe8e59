"""Load from h2load, a client in C that is no bottleneck, over HTTP/2 with gRPC's framing."""

import re
import resource
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STUCK_SECONDS = 20  # beyond the time that was asked for, something hangs
GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")


@dataclass(frozen=True)
class Load:
    """What a client saw."""

    requests: int
    seconds: float
    latencies: np.ndarray  # milliseconds of each request
    failed: int  # refused connections, resets, HTTP status other than 2xx
    data_bytes: int  # of the answers' messages; an error of gRPC has none
    ended: float  # when the load ended, by the clock of time.time
    client_seconds: float  # CPU of h2load, which has one thread

    @property
    def client_share(self) -> float:
        """The part of the time that h2load computed; near 1 it limits rate and latency."""
        return self.client_seconds / self.seconds

    @property
    def p50(self) -> float:
        """Median latency in milliseconds."""
        return float(np.percentile(self.latencies, 50))

    @property
    def p99(self) -> float:
        """99th percentile of the latency in milliseconds."""
        return float(np.percentile(self.latencies, 99))


@dataclass(frozen=True)
class Shape:
    """How callers call: so many at a time, over so many connections."""

    callers: int
    connections: int
    messages_per_request: int = 1  # more than one: a stream


def frame(message: bytes) -> bytes:
    """Return a message as gRPC sends it: uncompressed, after its length."""
    return struct.pack(">BI", 0, len(message)) + message


def load(  # noqa: PLR0913 (what h2load can be told)
    url: str,
    body: bytes,
    shape: Shape,
    *,
    requests: int | None = None,
    seconds: float | None = None,
    headers: tuple[str, ...] = GRPC_HEADERS,
    options: tuple[str, ...] = (),
) -> Load:
    """Send a body over and over, so many requests or for so many seconds.

    Raises:
        RuntimeError: h2load is missing, failed, got no answer or printed something unexpected.
        TimeoutExpired: the server hangs.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, log = Path(folder) / "body", Path(folder) / "log"
        data.write_bytes(body)
        amount = (
            ["--requests", str(requests)]
            if requests is not None
            else ["--duration", f"{round((seconds or 0) * 1000)}ms"]  # takes no fractions
        )
        command = [
            "h2load",
            *amount,
            *("--clients", str(shape.connections)),
            *("--max-concurrent-streams", str(max(1, shape.callers // shape.connections))),
            *("--data", str(data)),
            *("--log-file", str(log)),
            *("--window-bits", "30", "--connection-window-bits", "30"),
            *(word for header in headers for word in ("--header", header)),
            *options,
            url,
        ]
        before = _children_seconds()
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=STUCK_SECONDS + (seconds or 0),
            )
        except FileNotFoundError:
            raise RuntimeError("no h2load: apt-get install nghttp2-client") from None
        ended = time.time()
        if done.returncode:
            raise RuntimeError(f"h2load failed: {done.stderr.strip() or done.stdout.strip()}")
        return _parse(done.stdout, log, ended, _children_seconds() - before)


def _children_seconds() -> float:
    """Return the CPU of all children that have ended; of loads at the same time it is the sum."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _parse(output: str, log: Path, ended: float, client_seconds: float) -> Load:
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)", output)
    counts = re.search(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed", output)
    data = re.search(r"\((\d+)\) data", output)
    if not finished or not counts or not data:
        raise RuntimeError(f"unexpected output of h2load:\n{output}")
    if not log.exists() or not log.stat().st_size:
        raise RuntimeError(f"no request was answered:\n{output}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0}[finished[2]]
    lines = np.loadtxt(log, dtype=np.int64, ndmin=2)  # start, status, microseconds
    return Load(
        requests=len(lines),
        seconds=float(finished[1]) * unit,
        latencies=lines[:, 2] / 1e3,
        failed=int(counts[3]) + int((lines[:, 1] != 200).sum()),
        data_bytes=int(data[1]),
        ended=ended,
        client_seconds=client_seconds,
    )
