"""The tables of a run of `bench.scenarios.speed`."""

from collections.abc import Callable, Iterator, Sequence

from bench.reports.tables import Limit, limits_table, number, table
from bench.scenarios.cases import (
    AFTER_CROWDED,
    AFTER_LONE,
    CROWDED,
    ECHO,
    INFERS,
    INLINE,
    LARGE,
    LONE,
    OURS,
    STREAM,
    TRACE_CROWDED,
    TRACE_LONE,
    TRACED,
    TUTORIAL,
    UNARY_SERVERS,
    Cell,
)
from bench.scenarios.measure import Figures
from bench.scenarios.speed import Results

AS_FAST = 1.05  # what two runs of the same server may differ by


def report(results: Results, cells: Sequence[Cell], rounds: int, seconds: int) -> str:
    """Return all tables."""
    unary = [cell for cell in cells if cell.servers == UNARY_SERVERS]
    parts = [
        f"Median of {rounds} rounds of {seconds} s, and least to most; the servers in turn within "
        "a round. F(n): the echo's CPU for the same bytes from the same callers, and one forward "
        "pass of n images in process on one thread.",
        "### Limits",
        limits_table(list(limits(results))),
        "### Server CPU for each request, µs",
        _side_by_side(results, unary) if unary else "Not measured.",
        "### Images a second for each core of server CPU",
        _images(results, [cell for cell in LARGE if cell in unary]),
        "### All figures",
        "Of PredictStream, CPU and rate are those of a message, latencies those of the whole "
        f"stream of {STREAM.shape.messages_per_request:,}.",
        _details(results, cells),
    ]
    return "\n\n".join(part.strip() for part in parts)


def limits(results: Results) -> Iterator[Limit]:
    """Yield the figures that have a limit, as far as they were measured."""
    for part in (_crowd, _lone, _large, _stream, _infer, _trace, _after):
        yield from part(results)


def _crowd(results: Results) -> Iterator[Limit]:
    if results.has(CROWDED, OURS):
        what, ours = "CPU, 1 image, 64 callers", results.cpu(CROWDED, OURS)
        yield Limit(what, ours, "F(1)", results.floor(CROWDED), 0.80)
        yield Limit(what, ours, "tutorial", results.cpu(CROWDED, TUTORIAL), 0.45)


def _lone(results: Results) -> Iterator[Limit]:
    if results.has(LONE, OURS):
        ours, inline = (results.median(LONE, server, _p50) for server in (OURS, INLINE))
        yield Limit("p50, 1 image, 1 caller", ours, "inline", inline, 1.1, "ms")


def _large(results: Results) -> Iterator[Limit]:
    for cell in LARGE:
        if results.has(cell, OURS):
            images, dtype = cell.request.images, cell.request.dtype
            what = f"CPU, {images} {dtype} images, 8 callers"
            yield Limit(what, results.cpu(cell, OURS), f"F({images})", results.floor(cell), 1.1)


def _stream(results: Results) -> Iterator[Limit]:
    if results.has(STREAM, OURS):
        ours, floor = results.cpu(STREAM, OURS), results.floor(CROWDED)
        yield Limit("CPU, PredictStream, a message", ours, "F(1)", floor, 0.5)


def _infer(results: Results) -> Iterator[Limit]:
    for cell, predict in INFERS:
        if results.has(cell, OURS):
            what = f"CPU, {cell.name}"
            yield Limit(what, results.cpu(cell, OURS), "Predict", results.cpu(predict, OURS), 1.1)


def _trace(results: Results) -> Iterator[Limit]:
    for cell, predict in ((TRACE_LONE, LONE), (TRACE_CROWDED, CROWDED)):
        if results.has(cell, TRACED):
            callers = "caller" if cell.shape.callers == 1 else "callers"
            what = f"CPU, Trace statistics, {cell.shape.callers} {callers}"
            yield Limit(what, results.cpu(cell, TRACED), "Predict", results.cpu(predict, OURS), 1.5)


def _after(results: Results) -> Iterator[Limit]:
    if results.has(AFTER_LONE, TRACED):
        traced, ours = (results.median(AFTER_LONE, server, _p50) for server in (TRACED, OURS))
        yield Limit("p50, Predict after Trace, 1 caller", traced, "without", ours, AS_FAST, "ms")
    if results.has(AFTER_CROWDED, TRACED):
        traced, ours = (results.cpu(AFTER_CROWDED, server) for server in (TRACED, OURS))
        yield Limit("CPU, Predict after Trace, 64 callers", traced, "without", ours, AS_FAST)


def _p50(figures: Figures) -> float:
    return figures.p50


def _cpu(figures: Figures) -> float:
    return figures.cpu


def _spread(results: Results, cell: Cell, server: str, of: Callable[[Figures], float]) -> str:
    values = results.all(cell, server, of)
    median = number(results.median(cell, server, of))
    return f"{median} ({number(min(values))} to {number(max(values))})"


def _side_by_side(results: Results, cells: Sequence[Cell]) -> str:
    headings = (
        *("request", "callers", ECHO, "forward", "F(n)", TUTORIAL, INLINE, OURS),
        *("ours / echo", "ours / F(n)", "ours / tutorial", "ours / inline"),
    )
    rows = []
    for cell in cells:
        echo, tutorial, inline, ours = (results.cpu(cell, server) for server in UNARY_SERVERS)
        forward, floor = results.forward(cell.request.images), results.floor(cell)
        spread = {server: _spread(results, cell, server, _cpu) for server in UNARY_SERVERS}
        rows.append(
            (
                *(cell.title, cell.callers, spread[ECHO], number(forward), number(floor)),
                *(spread[TUTORIAL], spread[INLINE], spread[OURS]),
                *(f"{ours / other:.2f}" for other in (echo, floor, tutorial, inline)),
            )
        )
    return table(headings, rows, left=2)


def _images(results: Results, cells: Sequence[Cell]) -> str:
    """Return the images for each second of CPU; ONNX Runtime in process is the limit."""
    headings = ("request", "in process", "F(n)", TUTORIAL, INLINE, OURS, "ours / in process")
    rows = []
    for cell in cells:
        images = cell.request.images
        limit = results.forward(images)
        times = (limit, results.floor(cell), *(results.cpu(cell, s) for s in UNARY_SERVERS[1:]))
        ratio = f"{limit / results.cpu(cell, OURS):.2f}"
        rows.append((cell.title, *(number(images / each * 1e6) for each in times), ratio))
    return table(headings, rows)


def _details(results: Results, cells: Sequence[Cell]) -> str:
    headings = ("request", "callers", "server", "CPU, µs", "a second", "p50, ms", "p99, ms", "MiB")
    rows = [
        (
            *(cell.title, cell.callers, server),
            _spread(results, cell, server, _cpu),
            number(results.median(cell, server, lambda figures: figures.rate)),
            _spread(results, cell, server, _p50),
            _spread(results, cell, server, lambda figures: figures.p99),
            number(results.median(cell, server, lambda figures: figures.mebibytes)),
        )
        for cell in cells
        for server in cell.servers
    ]
    return table(headings, rows, left=3)
