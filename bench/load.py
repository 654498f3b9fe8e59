"""Load from h2load, a client in C that is no bottleneck, over HTTP/2 with gRPC's framing."""

import re
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")


@dataclass(frozen=True)
class Load:
    """What a client saw."""

    requests: int
    seconds: float
    latencies: np.ndarray  # milliseconds of each request
    body_bytes: int  # of all answers; says which HTTP 200 were errors of gRPC
    failed: int  # refused connections, resets, HTTP status other than 2xx

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


def load(  # noqa: PLR0913 - options of a command, by name
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
        RuntimeError: h2load failed or said what this can't read.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, log = Path(folder) / "body", Path(folder) / "log"
        data.write_bytes(body)
        amount = (
            ["--requests", str(requests)]
            if requests is not None
            else ["--duration", f"{round((seconds or 0) * 1000)}ms"]
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
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise RuntimeError(f"h2load failed with {done.returncode}: {said}")
        return _parse(done.stdout, log)


def _parse(output: str, log: Path) -> Load:
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)", output)
    counts = re.search(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed", output)
    traffic = re.search(r"traffic: .* \((\d+)\) data", output)
    if not finished or not counts or not traffic:
        raise RuntimeError(f"h2load said what this can't read:\n{output}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0}[finished[2]]
    lines = np.loadtxt(log, dtype=np.int64, ndmin=2)  # start, status, microseconds
    return Load(
        requests=len(lines),
        seconds=float(finished[1]) * unit,
        latencies=lines[:, 2] / 1e3,
        body_bytes=int(traffic[1]),
        failed=int(counts[3]) + int((lines[:, 1] != 200).sum()),
    )
