"""The command `compare`: images in every runtime of the server."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from forward_client.comparisons import Comparison, RuntimeComparison, combined
from forward_client.connection import ForwardClient
from forward_client.output import printable
from forward_client.terminal.batches import read_batches
from forward_client.terminal.screen import Screen


def compare(
    client: ForwardClient, paths: Sequence[Path], runtimes: Sequence[str], *, as_json: bool
) -> bool:
    """Print how far each runtime is from the exact forward pass; tell whether all agree.

    Raises:
        PictureError: a file can't be read.
        ForwardError: a call failed.
    """
    batches = read_batches(paths, client.model().max_batch_images)
    counts = [len(batch.sources) for batch in batches]
    comparison = combined([client.compare(batch.pixels, runtimes) for batch in batches], counts)
    if as_json:
        print(json.dumps(_record(comparison, paths, sum(counts))))
    else:
        console = Screen.here().console
        who = printable(f"{comparison.model_name} version {comparison.model_version}")
        console.print(f"{who}: errors against the exact forward pass, over {sum(counts)} image(s)")
        console.print(_table(comparison))
        for line in _verdicts(comparison, sum(counts)):
            console.print(line)
    return comparison.agrees


def _table(comparison: Comparison) -> Table:
    table = Table(
        box=SIMPLE_HEAD,  # this and the padding: all columns in 80 characters
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("runtime", style="bold", overflow="fold")
    table.add_column("stage", overflow="fold")
    for heading in ("largest", "mean", "of its bound", "ULPs"):
        table.add_column(heading, justify="right", overflow="fold")
    for each in comparison.runtimes:
        for index, stage in enumerate(each.stages):
            table.add_row(
                printable(each.runtime) if index == 0 else "",
                printable(stage.stage),
                f"{stage.max_error:.2g}",
                f"{stage.mean_error:.2g}",
                f"{stage.max_bound_share:.1%}",
                f"{stage.max_ulps:.4g}",
                style="bold red" if stage.stage == each.diverges_at else None,
            )
    return table


def _verdicts(comparison: Comparison, images: int) -> list[str]:
    lines = [_verdict(each, images) for each in comparison.runtimes]
    return [*lines, f"certified: {comparison.certified_share:.2%} of the decisions"]


def _verdict(each: RuntimeComparison, images: int) -> str:
    where = "agrees at every stage"
    if each.diverges_at is not None:
        where = f"diverges at {printable(each.diverges_at)}"
    return (
        f"{printable(each.runtime)}: {where}, {each.different_decisions} of {images} decisions "
        "differ"
    )


def _record(comparison: Comparison, paths: Sequence[Path], images: int) -> dict[str, Any]:
    """Return an object for JSON."""
    return {
        "files": [str(path) for path in paths],
        "images": images,
        "agrees": comparison.agrees,
        "certified_share": comparison.certified_share,
        "model": comparison.model_name,
        "version": comparison.model_version,
        "runtime": comparison.runtime,
        "runtimes": [
            {
                "runtime": each.runtime,
                "diverges_at": each.diverges_at,
                "different_decisions": each.different_decisions,
                "stages": [vars(stage) for stage in each.stages],
            }
            for each in comparison.runtimes
        ],
    }
