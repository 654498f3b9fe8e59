"""The transports of gRPC side by side, with the goals of the native one and what limits both."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.reports.tables import number, table
from bench.scenarios.cases import (
    BESIDE_TRACE,
    CONCURRENT,
    ECHOES,
    EIGHT,
    INFERS,
    LARGE,
    OURS,
    SINGLE,
    STREAM,
    TRACE_CONCURRENT,
    TRACE_SINGLE,
    TRACED,
    Case,
)
from bench.scenarios.measure import Figures
from bench.scenarios.rest import Rest
from bench.scenarios.speed import Results
from bench.servers.forward import TRANSPORTS, Transport

NONE = "-"  # not measured
MAX_MEBIBYTES_MORE = 35  # of the native transport, at rest


@dataclass(frozen=True)
class Goal:
    """What the native transport may take for a case: so much, and such a part of Python's."""

    case: Case
    most: float
    figure: str = "cpu"  # of Figures
    max_ratio: float | None = None

    @property
    def unit(self) -> str:
        """The unit of the figure."""
        return "µs" if self.figure == "cpu" else "ms"

    @property
    def title(self) -> str:
        """Say what it is, in a table."""
        what = "CPU" if self.figure == "cpu" else self.figure
        a_message = ", a message" if self.case is STREAM else ""
        return f"{what}, {self.case.name}{a_message}, {self.unit}"

    def of(self, figures: Figures) -> float:
        """Return the figure of a round."""
        return float(getattr(figures, self.figure))


GOALS: Sequence[Goal] = (
    Goal(CONCURRENT, 15, max_ratio=0.08),
    Goal(EIGHT, 45),
    Goal(SINGLE, 80),
    Goal(SINGLE, 0.11, "p50"),
    Goal(LARGE[0], 160),
    Goal(LARGE[1], 220),
    Goal(LARGE[2], 1150),
    Goal(STREAM, 6),
    Goal(INFERS[1][0], 16),
    Goal(TRACE_SINGLE, 430),
    Goal(TRACE_CONCURRENT, 170),
    Goal(BESIDE_TRACE, 2, "p99"),
)
HEADINGS = ("figure", *OURS.values(), "native / Python", "goal", "holds", *ECHOES)


def goals_table(results: Results) -> str:
    """Return both transports, the goals and the echoes, as far as they were measured."""
    rows = [row for goal in GOALS if (row := _goal_row(results, goal))]
    return table(HEADINGS, [*rows, *_rest_rows(results)])


def _goal_row(results: Results, goal: Goal) -> tuple[str, ...] | None:
    servers = _servers(goal.case)
    measured = {name: results.has(goal.case, name) for name in (*servers.values(), *ECHOES)}
    if not any(measured.values()):
        return None
    cells = {
        name: number(results.median(goal.case, name, goal.of)) if is_there else NONE
        for name, is_there in measured.items()
    }
    text, ratio, holds = number(goal.most), None, NONE
    if all(measured[name] for name in servers.values()):
        ratio = results.ratio(goal.case, servers["native"], servers["python"], goal.of)
    if goal.max_ratio:
        text += f", {goal.max_ratio} x Python"
    if measured[servers["native"]]:
        is_low = results.median(goal.case, servers["native"], goal.of) <= goal.most
        is_part = not (goal.max_ratio and ratio) or ratio <= goal.max_ratio
        holds = _yes(is_low and is_part)
    ours = [cells[servers[name]] for name in TRANSPORTS]
    echoes = [cells[name] for name in ECHOES]
    return (goal.title, *ours, NONE if ratio is None else f"{ratio:.3f}", text, holds, *echoes)


def _rest_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for what, of in (("resident", _resident), ("proportional", _proportional)):
        found = {
            name: statistics.median(map(of, results.rest[name]))
            for name in TRANSPORTS
            if results.rest.get(name)
        }
        if not found:
            continue
        ours = [number(found[name]) if name in found else NONE for name in TRANSPORTS]
        ratio, holds = NONE, NONE
        if len(found) == len(TRANSPORTS):
            ratio = f"{found['native'] / found['python']:.3f}"
            holds = _yes(found["native"] <= found["python"] + MAX_MEBIBYTES_MORE)
        goal = f"Python + {MAX_MEBIBYTES_MORE}"
        yield (f"memory at rest, {what}, MiB", *ours, ratio, goal, holds, NONE, NONE)


def latency_table(results: Results, cases: Sequence[Case]) -> str:
    """Return latencies and rates of both transports, where both were measured."""
    columns: Sequence[tuple[str, Callable[[Figures], float]]] = (
        ("p50, ms", lambda figures: figures.p50),
        ("p99, ms", lambda figures: figures.p99),
        ("a second", lambda figures: figures.rate),
    )
    names = (*OURS.values(), "ratio")
    headings = ["request", "callers", *(f"{what}: {name}" for what, _ in columns for name in names)]
    rows = []
    for case in cases:
        servers = _servers(case)
        if not all(results.has(case, name) for name in servers.values()):
            continue
        cells = [case.title, case.callers]
        for _, of in columns:
            cells += [number(results.median(case, servers[name], of)) for name in TRANSPORTS]
            cells.append(f"{results.ratio(case, servers['native'], servers['python'], of):.2f}")
        rows.append(cells)
    return table(headings, rows, left=2)


def _servers(case: Case) -> dict[Transport, str]:
    """Return the servers of ours that a case is measured on."""
    mapping = OURS if OURS["python"] in case.servers else TRACED
    return dict(mapping)


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


def _resident(rest: Rest) -> float:
    return rest.resident


def _proportional(rest: Rest) -> float:
    return rest.proportional
