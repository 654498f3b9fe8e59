"""The parity record as a table."""

from collections.abc import Sequence

from rich.table import Table

from export.manifest import RuntimeParity


def parity_table(records: Sequence[RuntimeParity]) -> Table:
    """Return the comparison as a table, a row for each runtime and stage."""
    images = min(record.images for record in records)
    table = Table(title=f"Parity with exact arithmetic on {images:,} images: all hold")
    for heading in ("runtime", "provider", "stage"):
        table.add_column(heading, overflow="fold")
    for heading in ("error", "bound", "margin"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        for stage in record.stages:
            table.add_row(
                record.runtime,
                record.provider,
                stage.stage,
                f"{stage.max_error:.2g}",
                f"{stage.bound:.2g}",
                f"{stage.margin:.2%}",
            )
        table.add_section()
    return table
