"""The rows as tables: in the terminal, and as Markdown for docs/performance/peers.md."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from bench.peers.measure import CASES, Case, Figures
from bench.peers.targets import FORWARD, Target

Results = Mapping[Target, Mapping[Case, Figures]]

HEADINGS = (
    *("server", "CPU µs (min-max)", "ratio", "requests/s", "ratio"),
    *("p50 ms", "ratio", "p99 ms", "ratio"),
)
REQUIREMENTS = Path(__file__).parent / "requirements"
PACKAGES = {"pytriton": "nvidia-pytriton"}  # where the name differs from the environment's


def _cells(name: str, figures: Figures, base: Figures) -> list[str]:
    ours, theirs = base.median, figures.median
    cells = [
        name,
        f"{theirs.cpu_microseconds:.0f} ({figures.min_cpu:.0f}-{figures.max_cpu:.0f})",
    ]
    cells.append(f"{theirs.cpu_microseconds / ours.cpu_microseconds:.2f}")
    cells.append(f"{theirs.requests_per_second:.0f}")
    cells.append(f"{theirs.requests_per_second / ours.requests_per_second:.2f}")
    cells.append(f"{theirs.p50_milliseconds:.2f}")
    cells.append(f"{theirs.p50_milliseconds / ours.p50_milliseconds:.2f}")
    cells.append(f"{theirs.p99_milliseconds:.2f}")
    cells.append(f"{theirs.p99_milliseconds / ours.p99_milliseconds:.2f}")
    return cells


def rows(results: Results, case: Case) -> list[list[str]]:
    """Return the cells of a case: Forward first, ratios to its first row."""
    base = results[FORWARD[0]][case]
    return [_cells(target.name, each[case], base) for target, each in results.items()]


def ahead(results: Results) -> str:
    """Say where a peer takes less CPU, answers more requests or has a lower p50 than Forward."""
    found = [
        f"{target.name} ({case}: {', '.join(better)})"
        for case in CASES
        for target, each in results.items()
        if target not in FORWARD and (better := _better(each[case], results[FORWARD[0]][case]))
    ]
    return f"Ahead of {FORWARD[0].name}: {'; '.join(found) or 'none'}."


def _better(theirs: Figures, ours: Figures) -> list[str]:
    them, us = theirs.median, ours.median
    compared = (
        ("CPU", them.cpu_microseconds < us.cpu_microseconds),
        ("requests/s", them.requests_per_second > us.requests_per_second),
        ("p50", them.p50_milliseconds < us.p50_milliseconds),
    )
    return [name for name, is_better in compared if is_better]


def show(results: Results, notes: Mapping[Target, str]) -> None:
    """Print a table for each case, and the notes."""
    console = Console(width=110)
    for case in CASES:
        table = Table(title=str(case).capitalize(), box=box.SIMPLE_HEAD, collapse_padding=True)
        for heading in HEADINGS:
            justify: Literal["left", "right"] = "left" if heading == "server" else "right"
            table.add_column(heading, justify=justify, no_wrap=True)
        for cells in rows(results, case):
            table.add_row(*cells)
        console.print(table)
    console.print(ahead(results), markup=False)
    for target, note in notes.items():
        console.print(f"{target.name}: {note}", markup=False)


def markdown(results: Results, notes: Mapping[Target, str], rounds: int, seconds: float) -> str:
    """Return the page of docs/performance/peers.md."""
    machine = f"{os.cpu_count()} shared cores, {platform.machine()}"
    page = [
        "# Forward beside other servers",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}; "
        f"medians of {rounds} rounds of {seconds:g} s, made by `make bench-peers`.",
        "Every server runs `models/mnist/1/model.onnx` with ONNX Runtime on one thread and was "
        "checked against it before each round. CPU is the user and system time of all processes "
        "of the server for a request. A caller waits for its answer before its next request; "
        "h2load calls gRPC servers over HTTP/2 (64 callers on 8 connections), the others over "
        "HTTP/1.1 (a connection each). Peers take float32 images as raw bytes. Forward is carried "
        f"by the transport that its row names. Each ratio is to {FORWARD[0].name} in the same "
        "table: CPU and milliseconds above 1 and requests below 1 are worse.",
        ahead(results),
    ]
    for case in CASES:
        lines = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)], *rows(results, case)]
        page.append(f"## {str(case).capitalize()}")
        page.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    page += ["## Notes", "\n".join(f"- {line}" for line in _notes(results, notes))]
    return "\n\n".join(page) + "\n"


def _notes(results: Results, notes: Mapping[Target, str]) -> list[str]:
    environments = {target.environment for target in results if target.environment}
    pins = ", ".join(_pin(each) for each in sorted(environments))
    return [
        f"Versions: Forward with grpcio {version('grpcio')}, onnxruntime "
        f"{version('onnxruntime')}; {pins}.",
        *(f"{target.name}: {target.note}" for target in results if target.note),
        *(f"{target.name}: no row. {note}" for target, note in notes.items()),
    ]


def _pin(environment: str) -> str:
    package = PACKAGES.get(environment, environment)
    for line in (REQUIREMENTS / f"{environment}.txt").read_text().splitlines():
        name, _, pinned = line.partition("==")
        if name == package:
            return f"{package} {pinned}"
    raise ValueError(f"no pin of {package}")
