"""The tables of a run of `bench.scenarios.speed`."""

import math
from collections.abc import Callable, Iterator, Sequence

from bench.reports.tables import Limit, limits_table, number, table
from bench.reports.transports import NONE, goals_table, latency_table
from bench.scenarios.cases import (
    AFTER_CONCURRENT,
    AFTER_SINGLE,
    ATTRIBUTIONS,
    BOTH,
    CONCURRENT,
    ECHO,
    INFERS,
    INLINE,
    INTERVENTIONS,
    LARGE,
    OURS,
    SINGLE,
    STREAM,
    TRACE_CONCURRENT,
    TRACE_SINGLE,
    TRACED,
    TUTORIAL,
    Case,
)
from bench.scenarios.measure import Figures
from bench.scenarios.speed import Results
from bench.servers.forward import Transport

PYTHON, PYTHON_TRACED = OURS["python"], TRACED["python"]
AS_FAST = 1.05  # what two runs of the same server may differ by


def report(
    results: Results,
    cases: Sequence[Case],
    transports: Sequence[Transport],
    rounds: int,
    seconds: float,
) -> str:
    """Return all tables."""
    unary = [case for case in cases if ECHO in case.servers]
    parts = [
        f"Median of {rounds} rounds of {seconds:g} s, with minimum and maximum; the servers in "
        "turn within a round, every second time the other way round. Transports of gRPC: "
        f"{' and '.join(transports)}. F(n): the echo's CPU for the same bytes from the same "
        "callers, and one forward pass of n images in process on one thread.",
        "### Transports",
        "CPU is that of the server's process for a request. The ratio is the median of the "
        "rounds' ratios. An echo has no model and decodes nothing: echo is carried by grpc.aio, "
        "native echo by the native transport, each call's bytes through Python. The goals are "
        "for a machine with nothing beside the benchmark.",
        goals_table(results),
        latency_table(results, cases) if len(transports) > 1 else "",
        "### Limits of the Python transport",
        limits_table(list(limits(results))),
        "### Server CPU for each request, µs",
        _side_by_side(results, unary) if unary else "Not measured.",
        "### Images a second for each core of server CPU",
        _images(results, [case for case in LARGE if case in unary]),
        "### All figures",
        "Of PredictStream, CPU and rate are those of a message, latencies those of the whole "
        f"stream of {STREAM.shape.messages_per_request:,}. The last column is the part of the "
        "time that h2load computed: where it is near 100%, rate and latency are its own.",
        _details(results, cases),
    ]
    return "\n\n".join(part.strip() for part in parts if part)


def limits(results: Results) -> Iterator[Limit]:
    """Yield the figures that have a limit, as far as they were measured."""
    parts = (_concurrent, _single, _large, _stream, _infer, _trace)
    for part in (*parts, _interventions, _attributions, _after):
        yield from part(results)


def _concurrent(results: Results) -> Iterator[Limit]:
    if results.has(CONCURRENT, PYTHON):
        what, ours = "CPU, 1 image, 64 callers", results.cpu(CONCURRENT, PYTHON)
        yield Limit(what, ours, "F(1)", results.floor(CONCURRENT), 0.80)
        yield Limit(what, ours, "tutorial", results.cpu(CONCURRENT, TUTORIAL), 0.45)


def _single(results: Results) -> Iterator[Limit]:
    if results.has(SINGLE, PYTHON):
        ours, inline = (results.median(SINGLE, server, _p50) for server in (PYTHON, INLINE))
        yield Limit("p50, 1 image, 1 caller", ours, "inline", inline, 1.1, "ms")


def _large(results: Results) -> Iterator[Limit]:
    for case in LARGE:
        if results.has(case, PYTHON):
            images, dtype = case.request.images, case.request.dtype
            what = f"CPU, {images} {dtype} images, 8 callers"
            yield Limit(what, results.cpu(case, PYTHON), f"F({images})", results.floor(case), 1.1)


def _stream(results: Results) -> Iterator[Limit]:
    if results.has(STREAM, PYTHON):
        ours, floor = results.cpu(STREAM, PYTHON), results.floor(CONCURRENT)
        yield Limit("CPU, PredictStream, a message", ours, "F(1)", floor, 0.5)


def _infer(results: Results) -> Iterator[Limit]:
    for case, predict in INFERS:
        if results.has(case, PYTHON):
            what = f"CPU, {case.name}"
            yield Limit(
                what,
                results.cpu(case, PYTHON),
                "Predict",
                results.cpu(predict, PYTHON),
                1.1,
            )


def _trace(results: Results) -> Iterator[Limit]:
    for case, predict in ((TRACE_SINGLE, SINGLE), (TRACE_CONCURRENT, CONCURRENT)):
        if results.has(case, PYTHON_TRACED):
            callers = "caller" if case.shape.callers == 1 else "callers"
            what = f"CPU, Trace statistics, {case.shape.callers} {callers}"
            yield Limit(
                what,
                results.cpu(case, PYTHON_TRACED),
                "Predict",
                results.cpu(predict, PYTHON),
                1.5,
            )


def _interventions(results: Results) -> Iterator[Limit]:
    for case, without in INTERVENTIONS:
        if results.has(case, PYTHON_TRACED):
            what = f"CPU, {case.name}"
            plain = results.cpu(without, PYTHON_TRACED)
            yield Limit(what, results.cpu(case, PYTHON_TRACED), "without", plain, 1.5)


def _attributions(results: Results) -> Iterator[Limit]:
    for case, trace in ATTRIBUTIONS:
        if results.has(case, PYTHON_TRACED) and results.has(trace, PYTHON_TRACED):
            what, traced = f"CPU, {case.name}", results.cpu(trace, PYTHON_TRACED)
            yield Limit(what, results.cpu(case, PYTHON_TRACED), "Trace", traced, 2.0)


def _after(results: Results) -> Iterator[Limit]:
    if results.has(AFTER_SINGLE, PYTHON_TRACED):
        traced, ours = (
            results.median(AFTER_SINGLE, server, _p50) for server in (PYTHON_TRACED, PYTHON)
        )
        yield Limit("p50, Predict after Trace, 1 caller", traced, "without", ours, AS_FAST, "ms")
    if results.has(AFTER_CONCURRENT, PYTHON_TRACED):
        traced, ours = (results.cpu(AFTER_CONCURRENT, server) for server in (PYTHON_TRACED, PYTHON))
        yield Limit("CPU, Predict after Trace, 64 callers", traced, "without", ours, AS_FAST)


def _p50(figures: Figures) -> float:
    return figures.p50


def _cpu(figures: Figures) -> float:
    return figures.cpu


def _spread(results: Results, case: Case, server: str, of: Callable[[Figures], float]) -> str:
    values = results.all(case, server, of)
    if any(map(math.isnan, values)):
        return NONE
    median = number(results.median(case, server, of))
    return f"{median} ({number(min(values))} to {number(max(values))})"


def _side_by_side(results: Results, cases: Sequence[Case]) -> str:
    others, references = (ECHO, TUTORIAL, INLINE), ("F(n)", TUTORIAL)
    headings = (
        *("request", "callers", ECHO, "forward", "F(n)", TUTORIAL, INLINE, *BOTH),
        *(f"{ours} / {reference}" for reference in references for ours in BOTH),
    )
    rows = []
    for case in cases:
        found = [name for name in (*others, *BOTH) if results.has(case, name)]
        cells = {name: _spread(results, case, name, _cpu) for name in found}
        cpu = {name: results.cpu(case, name) for name in found} | {"F(n)": results.floor(case)}
        ratios = (
            f"{cpu[ours] / cpu[name]:.2f}" if {ours, name} <= cpu.keys() else NONE
            for name in references
            for ours in BOTH
        )
        echo, *rest = (cells.get(name, NONE) for name in (*others, *BOTH))
        forward = number(results.forward(case.request.images))
        rows.append((case.title, case.callers, echo, forward, number(cpu["F(n)"]), *rest, *ratios))
    return table(headings, rows, left=2)


def _images(results: Results, cases: Sequence[Case]) -> str:
    """Return the images for each second of CPU; ONNX Runtime in process is the limit."""
    servers = [name for name in BOTH if all(results.has(case, name) for case in cases)]
    headings = (
        *("request", "in process", "F(n)", *servers),
        *(f"{name} / in process" for name in servers),
    )
    rows = []
    for case in cases:
        limit, cpu = results.forward(case.request.images), [results.cpu(case, s) for s in servers]
        times = (limit, results.floor(case), *cpu)
        images = (number(case.request.images / each * 1e6) for each in times)
        rows.append((case.title, *images, *(f"{limit / each:.2f}" for each in cpu)))
    return table(headings, rows)


def _details(results: Results, cases: Sequence[Case]) -> str:
    headings = (
        *("request", "callers", "server", "CPU, µs", "a second", "p50, ms", "p99, ms", "MiB"),
        "h2load",
    )
    rows = [
        (
            *(case.title, case.callers, server),
            _spread(results, case, server, _cpu),
            number(results.median(case, server, lambda figures: figures.rate)),
            _spread(results, case, server, _p50),
            _spread(results, case, server, lambda figures: figures.p99),
            number(results.median(case, server, lambda figures: figures.mebibytes)),
            f"{results.median(case, server, lambda figures: figures.client):.0%}",
        )
        for case in cases
        for server in case.servers
        if results.has(case, server)
    ]
    return table(headings, rows, left=3)
