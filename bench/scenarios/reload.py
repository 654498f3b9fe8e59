"""Version after version under load: `python -m bench reload`."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.load.callers import CallerCounts
from bench.load.processes import Served, running
from bench.reports.tables import Limit, limits_table, number, table
from bench.scenarios.speed import say
from bench.scenarios.variants import MODEL, Variants
from bench.servers.forward import Setting, Transport, forward
from forward_client import ForwardClient

CALLERS, PROCESSES = 32, 2
WARM_SECONDS = 3.0
QUIET_SECONDS = 0.3  # after each reload, to compare with
STUCK_SECONDS = 60
POLL_SECONDS = 0.005
AFTER_SECONDS = 0.1  # in which the old version is closed
SAMPLE_RELOADS = 20
MAX_GROWTH_MEBIBYTES = 5.0

Window = tuple[float, float]  # begin and end, by time.monotonic


@dataclass(frozen=True)
class Reloads:
    """What was seen."""

    counts: CallerCounts
    calls: np.ndarray  # [N, 2]: started, seconds
    quiet: Sequence[Window]  # after each reload
    windows: Sequence[Window]  # each reload, from SIGHUP to the old version's end
    mebibytes: Sequence[float]  # resident after each reload

    def latencies(self, windows: Sequence[Window]) -> np.ndarray:
        """Return the milliseconds of the calls that went on at some moment of the windows."""
        started, ended = self.calls[:, 0], self.calls.sum(axis=1)
        chosen = np.zeros(len(self.calls), bool)
        for begin, end in windows:
            chosen |= (started <= end) & (ended >= begin)
        return self.calls[chosen, 1] * 1e3


def reload_under_load(
    reloads: int,
    callers: int = CALLERS,
    transport: Setting = "auto",
    *,
    closes_log: bool = False,
) -> Reloads:
    """Publish so many versions one after the other and have each served by SIGHUP.

    The reader of the server's log may go away before.

    Raises:
        WrongAnswerError: the variants are no good.
        RuntimeError: a version was not served in time, or the callers failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models_dir = folder / "models"
        variants = Variants(models_dir)
        variants.write_requests(folder)
        variants.publish()
        arguments = ("--models-dir", str(models_dir), "--model", MODEL, "--reload-interval", "0")
        with (
            running(*forward(transport), *arguments, closes_log=closes_log) as served,
            _callers(served.port, folder, callers) as processes,
        ):
            time.sleep(WARM_SECONDS)
            windows, quiet, mebibytes = _reload(served, variants, reloads)
            counts = _ended(processes)
        calls = np.concatenate([np.load(path) for path in sorted(folder.glob("calls-*.npy"))])
    return Reloads(counts, calls, quiet, windows, mebibytes)


def _reload(
    served: Served, variants: Variants, reloads: int
) -> tuple[list[Window], list[Window], list[float]]:
    windows, quiet, mebibytes = [], [], []
    with ForwardClient(f"127.0.0.1:{served.port}", timeout_seconds=STUCK_SECONDS) as client:
        for turn in range(1, reloads + 1):
            version = variants.publish()
            windows.append(_one_reload(served, client, version))
            mebibytes.append(served.resident_mebibytes())
            started = time.monotonic()
            time.sleep(QUIET_SECONDS)
            quiet.append((started, time.monotonic()))
            if turn % 10 == 0:
                say(f"reload {turn}: {mebibytes[-1]:.1f} MiB")
    return windows, quiet, mebibytes


def _one_reload(served: Served, client: ForwardClient, version: int) -> Window:
    started = time.monotonic()
    served.process.send_signal(signal.SIGHUP)
    while client.model().version != version:
        if time.monotonic() > started + STUCK_SECONDS:
            raise RuntimeError(f"version {version} was not served in {STUCK_SECONDS} s")
        time.sleep(POLL_SECONDS)
    time.sleep(AFTER_SECONDS)
    return started, time.monotonic()


@contextmanager
def _callers(port: int, folder: Path, callers: int) -> Iterator[list[subprocess.Popen[str]]]:
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.load.callers", str(port), str(folder)),
                *(str(callers // PROCESSES), str(seed)),
            ],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for seed in range(PROCESSES)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _ended(processes: Sequence[subprocess.Popen[str]]) -> CallerCounts:
    counts = CallerCounts()
    for process in processes:
        if process.stdin is not None:
            process.stdin.close()
            process.stdin = None
    for process in processes:
        output, _ = process.communicate(timeout=STUCK_SECONDS)
        if process.returncode:
            raise RuntimeError(f"the callers ended with status {process.returncode}")
        counts.add(CallerCounts(**json.loads(output)))
    return counts


def report(transport: Transport, reloads: int, *, closes_log: bool = False) -> str:
    """Return the tables of so many reloads."""
    seen = reload_under_load(reloads, transport=transport, closes_log=closes_log)
    return "\n\n".join(
        part.strip()
        for part in (
            f"{reloads} versions, each with other weights than the last, published one by one and "
            f"asked for by SIGHUP, while {CALLERS} callers in {PROCESSES} processes compare every "
            "answer, bit for bit, with the logits of the version that it names. Callers and "
            "publishing share the processors with the server.",
            "### Limits of reloading",
            limits_table(_limits(seen)),
            "### Figures of reloading",
            table(("figure", "measured"), _figures(seen)),
            "### Memory after a reload",
            table(("reload", "MiB"), _memory(seen.mebibytes), left=0),
        )
    )


def _limits(seen: Reloads) -> list[Limit]:
    count = len(seen.mebibytes)
    first = count // 10  # the runtime's and Python's own memory grows in the first reloads
    warm, last = (
        float(np.median(part))
        for part in (seen.mebibytes[first:][:SAMPLE_RELOADS], seen.mebibytes[-SAMPLE_RELOADS:])
    )
    counts = seen.counts
    what = f"growth of memory from reloads {first + 1} on, medians of {SAMPLE_RELOADS}"
    return [
        Limit("failed requests", sum(counts.failed.values()), "maximum", 0, 1, ""),
        Limit("answers not of the version that they name", counts.wrong, "maximum", 0, 1, ""),
        Limit("answers older than the caller's last", counts.backwards, "maximum", 0, 1, ""),
        Limit(what, max(0.0, last - warm), "maximum", MAX_GROWTH_MEBIBYTES, 1, "MiB"),
    ]


def _figures(seen: Reloads) -> list[tuple[str, str]]:
    lengths = np.array([end - begin - AFTER_SECONDS for begin, end in seen.windows]) * 1e3
    rows = [
        ("answers, all compared", f"{seen.counts.answered:,}"),
        ("versions that answered", str(len(seen.counts.versions))),
        ("from SIGHUP to the new version, median, ms", number(float(np.median(lengths)))),
        ("the same, maximum, ms", number(float(lengths.max()))),
    ]
    for when, windows in (("between reloads", seen.quiet), ("during reloads", seen.windows)):
        latencies = seen.latencies(windows)
        rows.append((f"calls {when}", f"{len(latencies):,}"))
        for percent in (50, 99, 100):
            figure = number(float(np.percentile(latencies, percent)))
            rows.append((f"latency {when}, percentile {percent}, ms", figure))
    return rows


def _memory(mebibytes: Sequence[float]) -> Iterator[tuple[str, str]]:
    for turn in (1, *range(20, len(mebibytes) + 1, 20)):
        yield str(turn), f"{mebibytes[turn - 1]:.1f}"
