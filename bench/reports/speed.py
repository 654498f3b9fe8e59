"""The tables of a run of `bench.scenarios.speed`."""

import math
from collections.abc import Callable, Iterator, Sequence

from bench.reports.tables import Limit, limits_table, number, table
from bench.reports.transports import NONE, goals_table, latency_table
from bench.scenarios.cases import (
    AFTER_CONCURRENT,
    AFTER_SINGLE,
    ATTRIBUTIONS,
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
        "### Limits",
        f"Of the {results.default} transport.",
        limits_table(list(limits(results))),
        "### Server CPU for each request, µs",
        _side_by_side(results, unary) if unary else "Not measured.",
        "### Images a second for each core of server CPU",
        _images(results, [case for case in LARGE if case in unary]),
        "### All figures",
        "Of PredictStream, CPU and rate are those of a message, latencies those of the whole "
        f"stream of {STREAM.shape.messages_per_request:,}.",
        _details(results, cases),
    ]
    return "\n\n".join(part.strip() for part in parts if part)


def limits(results: Results) -> Iterator[Limit]:
    """Yield the figures that have a limit, as far as they were measured."""
    parts = (_concurrent, _single, _large, _stream, _infer, _trace)
    for part in (*parts, _interventions, _attributions, _after):
        yield from part(results)


def _ours(results: Results) -> str:
    return OURS[results.default]


def _traced(results: Results) -> str:
    return TRACED[results.default]


def _concurrent(results: Results) -> Iterator[Limit]:
    if results.has(CONCURRENT, _ours(results)):
        what, ours = "CPU, 1 image, 64 callers", results.cpu(CONCURRENT, _ours(results))
        yield Limit(what, ours, "F(1)", results.floor(CONCURRENT), 0.80)
        yield Limit(what, ours, "tutorial", results.cpu(CONCURRENT, TUTORIAL), 0.45)


def _single(results: Results) -> Iterator[Limit]:
    if results.has(SINGLE, _ours(results)):
        ours, inline = (results.median(SINGLE, server, _p50) for server in (_ours(results), INLINE))
        yield Limit("p50, 1 image, 1 caller", ours, "inline", inline, 1.1, "ms")


def _large(results: Results) -> Iterator[Limit]:
    for case in LARGE:
        if results.has(case, _ours(results)):
            images, dtype = case.request.images, case.request.dtype
            what = f"CPU, {images} {dtype} images, 8 callers"
            yield Limit(
                what, results.cpu(case, _ours(results)), f"F({images})", results.floor(case), 1.1
            )


def _stream(results: Results) -> Iterator[Limit]:
    if results.has(STREAM, _ours(results)):
        ours, floor = results.cpu(STREAM, _ours(results)), results.floor(CONCURRENT)
        yield Limit("CPU, PredictStream, a message", ours, "F(1)", floor, 0.5)


def _infer(results: Results) -> Iterator[Limit]:
    for case, predict in INFERS:
        if results.has(case, _ours(results)):
            what = f"CPU, {case.name}"
            yield Limit(
                what,
                results.cpu(case, _ours(results)),
                "Predict",
                results.cpu(predict, _ours(results)),
                1.1,
            )


def _trace(results: Results) -> Iterator[Limit]:
    for case, predict in ((TRACE_SINGLE, SINGLE), (TRACE_CONCURRENT, CONCURRENT)):
        if results.has(case, _traced(results)):
            callers = "caller" if case.shape.callers == 1 else "callers"
            what = f"CPU, Trace statistics, {case.shape.callers} {callers}"
            yield Limit(
                what,
                results.cpu(case, _traced(results)),
                "Predict",
                results.cpu(predict, _ours(results)),
                1.5,
            )


def _interventions(results: Results) -> Iterator[Limit]:
    for case, without in INTERVENTIONS:
        if results.has(case, _traced(results)):
            what = f"CPU, {case.name}"
            plain = results.cpu(without, _traced(results))
            yield Limit(what, results.cpu(case, _traced(results)), "without", plain, 1.5)


def _attributions(results: Results) -> Iterator[Limit]:
    for case, trace in ATTRIBUTIONS:
        if results.has(case, _traced(results)) and results.has(trace, _traced(results)):
            what, traced = f"CPU, {case.name}", results.cpu(trace, _traced(results))
            yield Limit(what, results.cpu(case, _traced(results)), "Trace", traced, 2.0)


def _after(results: Results) -> Iterator[Limit]:
    if results.has(AFTER_SINGLE, _traced(results)):
        traced, ours = (
            results.median(AFTER_SINGLE, server, _p50)
            for server in (_traced(results), _ours(results))
        )
        yield Limit("p50, Predict after Trace, 1 caller", traced, "without", ours, AS_FAST, "ms")
    if results.has(AFTER_CONCURRENT, _traced(results)):
        traced, ours = (
            results.cpu(AFTER_CONCURRENT, server) for server in (_traced(results), _ours(results))
        )
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
    others = (ECHO, TUTORIAL, INLINE)
    ours = _ours(results)
    headings = (
        *("request", "callers", ECHO, "forward", "F(n)", TUTORIAL, INLINE, ours),
        *(f"{ours} / {other}" for other in (ECHO, "F(n)", TUTORIAL, INLINE)),
    )
    rows = []
    for case in cases:
        found = [name for name in (*others, ours) if results.has(case, name)]
        spread = {name: _spread(results, case, name, _cpu) for name in found}
        cpu = {name: results.cpu(case, name) for name in found} | {"F(n)": results.floor(case)}
        forward = number(results.forward(case.request.images))
        cells = [spread.get(name, NONE) for name in (*others, ours)]
        ratios = [
            f"{cpu[ours] / cpu[name]:.2f}" if name in cpu else NONE
            for name in (ECHO, "F(n)", TUTORIAL, INLINE)
        ]
        rows.append(
            (case.title, case.callers, cells[0], forward, number(cpu["F(n)"]), *cells[1:], *ratios)
        )
    return table(headings, rows, left=2)


def _images(results: Results, cases: Sequence[Case]) -> str:
    """Return the images for each second of CPU; ONNX Runtime in process is the limit."""
    servers = [name for name in OURS.values() if all(results.has(case, name) for case in cases)]
    headings = ("request", "in process", "F(n)", *servers, f"{_ours(results)} / in process")
    rows = []
    for case in cases:
        images = case.request.images
        limit = results.forward(images)
        times = (limit, results.floor(case), *(results.cpu(case, name) for name in servers))
        ratio = f"{limit / results.cpu(case, _ours(results)):.2f}"
        rows.append((case.title, *(number(images / each * 1e6) for each in times), ratio))
    return table(headings, rows)


def _details(results: Results, cases: Sequence[Case]) -> str:
    headings = ("request", "callers", "server", "CPU, µs", "a second", "p50, ms", "p99, ms", "MiB")
    rows = [
        (
            *(case.title, case.callers, server),
            _spread(results, case, server, _cpu),
            number(results.median(case, server, lambda figures: figures.rate)),
            _spread(results, case, server, _p50),
            _spread(results, case, server, lambda figures: figures.p99),
            number(results.median(case, server, lambda figures: figures.mebibytes)),
        )
        for case in cases
        for server in case.servers
        if results.has(case, server)
    ]
    return table(headings, rows, left=3)
