"""Tables in Markdown, and the file that keeps them."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import packages_distributions, version
from pathlib import Path

RESULTS = Path("docs/performance/results.md")
TITLE = "# Results\n\nWritten by `python -m bench`, each section by a run of its own.\n"


@dataclass(frozen=True)
class Limit:
    """A figure beside what it may be at most."""

    what: str
    figure: float
    reference: str
    of: float
    max_ratio: float  # times the reference
    unit: str = "µs"

    @property
    def ratio(self) -> float:
        """The figure as a multiple of the reference."""
        return self.figure / self.of if self.of else float("inf") if self.figure else 0.0

    @property
    def holds(self) -> bool:
        """Tell whether the limit is kept."""
        return self.figure <= self.max_ratio * self.of


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a table whose first columns are text and whose others are figures."""
    rules = [":--"] * left + ["--:"] * (len(headings) - left)
    lines = [headings, rules, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def limits_table(limits: Sequence[Limit]) -> str:
    """Return figures beside their limits."""
    rows = [
        (
            limit.what,
            f"{number(limit.figure)} {limit.unit}",
            f"{limit.reference}: {number(limit.of)} {limit.unit}",
            f"{limit.ratio:.2f}",
            f"{limit.max_ratio:.2f}",
            "yes" if limit.holds else "**no**",
        )
        for limit in limits
    ]
    return table(("figure", "measured", "reference", "ratio", "limit", "holds"), rows)


def number(value: float) -> str:
    """Return a figure with three digits or all before the point."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine() -> str:
    """Say when and on what this was measured."""
    runtimes = packages_distributions()["onnxruntime"]  # or onnxruntime-gpu
    names = ("grpcio", *sorted(set(runtimes)), "uvloop", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    cores = len(os.sched_getaffinity(0))
    processor = platform.machine().replace("_", "-")
    python = platform.python_version()
    return f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, {processor}, Python {python}, {versions}."


def keep(heading: str, text: str, path: Path) -> None:
    """Write a section into the file of results; the others stay as they are."""
    section = f"## {heading}\n\n{machine()}\n\n{text.strip()}\n"
    old = path.read_text() if path.exists() else TITLE
    found = re.compile(rf"^## {re.escape(heading)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if found.search(old):
        new = found.sub(lambda _: f"{section}\n", old)
    else:
        new = f"{old.rstrip()}\n\n{section}"
    path.write_text(f"{new.rstrip()}\n")
