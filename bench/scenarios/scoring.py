"""Batch scoring of more than its memory may hold, killed midway: `python -m bench scoring`."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

from bench.load.processes import running
from bench.reports.tables import Limit, limits_table, number, table
from bench.scenarios.speed import say
from bench.servers.forward import Transport, forward
from export.settings import read_settings
from forward_client import ForwardClient
from training.config import TrainingSettings
from training.data import load

FILE_IMAGES = 25_000
OBJECT_STORE_MEBIBYTES = 100
CAP_MEBIBYTES = 1_850  # of all processes, Ray's own among them; a million images have 1,869
EVERY_SECONDS = 1.0
STUCK_SECONDS = 200
PREDICTED_IMAGES = 1000  # of a request


@dataclass
class Usage:
    """What a command and all that it starts take, seen from the outside."""

    process: psutil.Process
    mebibytes: list[float] = field(default_factory=list)
    own_mebibytes: list[float] = field(default_factory=list)  # of the command itself
    cpu_seconds: dict[int, float] = field(default_factory=dict)  # by process
    peak: list[tuple[float, str]] = field(default_factory=list)  # MiB and name of each process

    def sample(self) -> list[psutil.Process]:
        """Note what is used now; return the processes. Shared memory counts once."""
        try:
            family = [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        each = []
        for one in family:
            try:
                used, times = one.memory_full_info().pss / 2**20, one.cpu_times()
                each.append((used, _name(one)))
            except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                continue
            self.cpu_seconds[one.pid] = times.user + times.system
            if one.pid == self.process.pid:
                self.own_mebibytes.append(used)
        total = sum(used for used, _ in each)
        if total > max(self.mebibytes, default=0.0):
            self.peak = sorted(each, reverse=True)
        self.mebibytes.append(total)
        return family


def _name(process: psutil.Process) -> str:
    """Return what a process is for, as far as its command tells."""
    words = process.cmdline()
    if words and words[0].startswith("ray::"):
        return re.sub(r"[^\w:]", " ", words[0]).split()[0]
    script = next((word for word in words if word.endswith(".py")), "")
    return Path(script).stem if script else "command" if "score" in words else process.name()


@dataclass(frozen=True)
class Run:
    """A run of the command."""

    usage: Usage
    seconds: float
    images: int
    status: int
    left: int  # processes that are there after it


def scoring(transport: Transport, images: int) -> str:
    """Return the tables of the scoring of so many images, a multiple of 50,000."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digits = _digits()
        logits = _predicted(transport, digits)
        sources = _write(folder / "in", digits, images)
        say(f"{len(sources)} files, {_gigabytes(sources):.2f} GB")
        output = folder / "out"
        killed = _run(folder / "in", output, lambda: _rows(output) >= images // 2)
        say(f"killed after {killed.images:,} images")
        resumed = _run(folder / "in", output, lambda: False)
        say(f"went on with {resumed.images:,} images")
        return _report(images, sources, killed, resumed, _check(output, sources, logits))


def _digits() -> np.ndarray:
    """Return MNIST's 10,000 test images, uint8."""
    settings = read_settings(TrainingSettings, [])
    pixels = load("mnist", settings.data_dir, settings.mirror).test.pixels().numpy()
    digits: np.ndarray = np.rint(pixels * 255).astype(np.uint8)
    return digits


def _predicted(transport: Transport, digits: np.ndarray) -> np.ndarray:
    """Return the logits that a server answers."""
    with running(*forward(transport)) as served:
        client = ForwardClient(f"127.0.0.1:{served.port}", timeout_seconds=STUCK_SECONDS)
        with client:
            starts = range(0, len(digits), PREDICTED_IMAGES)
            parts = [client.predict(digits[at : at + PREDICTED_IMAGES]).logits for at in starts]
    return np.concatenate(parts)


def _write(folder: Path, digits: np.ndarray, images: int) -> list[Path]:
    """Write the images again and again: half of the files UINT8, half FLOAT32."""
    folder.mkdir()
    paths = []
    for number_ in range(images // FILE_IMAGES):
        rows = _repeated(number_, len(digits))
        levels = digits[rows]
        is_float = number_ % 2 == 1
        path = folder / f"{number_:04d}.npy"
        np.save(path, levels.astype(np.float32) / np.float32(255) if is_float else levels)
        paths.append(path)
    return paths


def _repeated(file: int, digits: int) -> np.ndarray:
    """Return which digit each row of a file is."""
    return (np.arange(FILE_IMAGES) + file * FILE_IMAGES) % digits


def _run(source: Path, output: Path, is_enough: Callable[[], bool]) -> Run:
    """Run the command; kill it as soon as it is enough."""
    before, began = _rows(output), time.monotonic()
    command = [sys.executable, "-m", "deploy.ray", "score", str(source), str(output)]
    limits = ("--object-store-mb", str(OBJECT_STORE_MEBIBYTES))
    with subprocess.Popen([*command, *limits], stdout=subprocess.DEVNULL) as process:
        usage = Usage(psutil.Process(process.pid))
        family: dict[int, psutil.Process] = {}
        try:
            while process.poll() is None and not is_enough():
                family |= {one.pid: one for one in usage.sample()}
                time.sleep(EVERY_SECONDS)
        finally:
            process.kill()
        status = process.wait()
    seconds = time.monotonic() - began
    if _rows(output) == before:
        raise RuntimeError(f"nothing was scored; the command ended with status {status}")
    _, left = psutil.wait_procs(list(family.values()), timeout=STUCK_SECONDS)
    return Run(usage, seconds, _rows(output) - before, status, len(left))


def _rows(output: Path) -> int:
    parts = (output / "rows").glob("*.parquet")
    return sum(pq.read_metadata(path).num_rows for path in parts)


@dataclass
class Checked:
    """What is wrong with the rows."""

    lost: int = 0
    doubled: int = 0
    different: int = 0  # logits or class, by their bits
    certified: int = 0


def _check(output: Path, sources: Sequence[Path], logits: np.ndarray) -> Checked:
    checked = Checked()
    seen = {path.name: np.zeros(FILE_IMAGES, int) for path in sources}
    for path in (output / "rows").glob("*.parquet"):
        rows = pq.read_table(path)
        name, at = rows["source"][0].as_py(), rows["row"].to_numpy()
        np.add.at(seen[name], at, 1)
        expected = logits[_repeated(int(name.partition(".")[0]), len(logits))[at]]
        got = rows["logits"].combine_chunks().flatten().to_numpy().reshape(-1, logits.shape[1])
        is_same = (got.view(np.uint32) == expected.view(np.uint32)).all(axis=1)
        is_same &= rows["class"].to_numpy() == expected.argmax(axis=1)
        checked.different += int((~is_same).sum())
        checked.certified += int(
            rows["certificate"]
            .combine_chunks()
            .field("certified")
            .to_numpy(zero_copy_only=False)
            .sum()
        )
    counts = np.concatenate(list(seen.values()))
    checked.lost, checked.doubled = int((counts == 0).sum()), int((counts > 1).sum())
    return checked


def _gigabytes(paths: Sequence[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / 1e9


def _report(
    images: int, sources: Sequence[Path], killed: Run, resumed: Run, checked: Checked
) -> str:
    both = (killed, resumed)
    peak = max(max(run.usage.mebibytes) for run in both)
    limits = [
        Limit("rows lost", checked.lost, "maximum", 0, 1, ""),
        Limit("rows doubled", checked.doubled, "maximum", 0, 1, ""),
        Limit(
            "logits or classes other than Predict's, by bits",
            checked.different,
            "maximum",
            0,
            1,
            "",
        ),
        Limit("exit status of the second run", resumed.status, "maximum", 0, 1, ""),
        Limit("processes left", sum(run.left for run in both), "maximum", 0, 1, ""),
        Limit("memory of all processes, peak (PSS)", peak, "maximum", CAP_MEBIBYTES, 1, "MiB"),
    ]
    return "\n\n".join(
        part.strip()
        for part in (
            f"{images:,} images, MNIST's test images again and again, in {len(sources)} NPY files "
            f"of {_gigabytes(sources):.2f} GB, half of them UINT8, half FLOAT32; scored with "
            f"certificates, an object store of {OBJECT_STORE_MEBIBYTES} MiB; killed by SIGKILL "
            "about half-way, and continued by the same command. Times have Ray's start in them.",
            "### Limits of scoring",
            limits_table(limits),
            "### Figures of scoring",
            table(("figure", "until the kill", "continued"), _figures(both, checked)),
            "### Memory of scoring, by process, at the peak",
            table(("process", "MiB (PSS)"), _peak(both)),
        )
    )


def _figures(runs: Sequence[Run], checked: Checked) -> list[tuple[str, ...]]:
    def row(name: str, figure: Callable[[Run], float]) -> tuple[str, ...]:
        return (name, *(number(figure(run)) for run in runs))

    return [
        ("images", *(f"{run.images:,}" for run in runs)),
        row("seconds", lambda run: run.seconds),
        row("images a second", lambda run: run.images / run.seconds),
        row(
            "CPU of all processes for an image, µs",
            lambda run: sum(run.usage.cpu_seconds.values()) / run.images * 1e6,
        ),
        row("memory of all processes, peak, MiB", lambda run: max(run.usage.mebibytes)),
        row("memory of the command itself, peak, MiB", lambda run: max(run.usage.own_mebibytes)),
        ("decisions certified", "", f"{checked.certified:,}"),
    ]


def _peak(runs: Sequence[Run]) -> list[tuple[str, str]]:
    highest = max(runs, key=lambda run: max(run.usage.mebibytes))
    return [(name, number(used)) for used, name in highest.usage.peak]
