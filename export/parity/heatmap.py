"""A comparison as a picture: how much of its bound each stage used, and which units were off."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from export.architecture import Stage
from export.bundle.manifest import StageParity
from export.errors import ExportError
from export.parity.compare import Comparison, Report

MARGINS = LogNorm(1e-3, 1, clip=True)  # the darkest colour: the bound is used up
# Stand for no error and for an infinite one on a logarithmic scale.
NOTHING, LARGEST = 1e-12, 1e12
DARK = 0.6  # of the colours; above it text is white


def draw_heatmap(report: Report, stages: Sequence[Stage]) -> bytes:
    """Return the heat map as a PNG.

    Raises:
        ExportError: nothing was compared.
    """
    buffer = io.BytesIO()
    heatmap(report, stages).savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def heatmap(report: Report, stages: Sequence[Stage]) -> Figure:
    """Return a figure: runtime by stage, and below it the largest error of every unit.

    A wrong unit, for example a wrong row of weights, is visible as a stripe.

    Raises:
        ExportError: nothing was compared.
    """
    ran = [one for one in report.comparisons if one.record]
    if not ran:
        raise ExportError("no runtime ran, so there is no picture to draw")
    linear = [stage.name for stage in stages if stage.operation == "Linear"]
    height = 1.3 + (0.45 * len(ran) + 0.6) * (1 + len(linear))
    figure = Figure(figsize=(10, height), layout="constrained")
    figure.suptitle(
        f"{report.model}, version {report.version}: difference from exact arithmetic, "
        f"{report.images:,} images ({report.image_set})",
        parse_math=False,  # a $ in a name is a $
    )
    axes = figure.subplots(1 + len(linear), 1, squeeze=False)[:, 0]
    _draw_margins(axes[0], ran, [stage.name for stage in stages])
    for axis, stage in zip(axes[1:], linear, strict=True):
        _draw_units(axis, ran, stage)
    for axis in axes:
        axis.set_yticks(range(len(ran)), [one.name for one in ran])
    return figure


def _draw_margins(axis: Axes, ran: Sequence[Comparison], stages: Sequence[str]) -> None:
    figures = [
        {stage.stage: stage for stage in (one.record.stages if one.record else ())} for one in ran
    ]
    margins = np.array(
        [[row[name].margin if name in row else LARGEST for name in stages] for row in figures]
    )
    margins = np.maximum(margins, NOTHING)
    shades = MARGINS(margins)
    image = axis.imshow(margins, norm=MARGINS, cmap="YlOrRd", aspect="auto")
    axis.set_xticks(range(len(stages)), stages, parse_math=False)
    axis.set_title("largest error, and the share of its proven bound that any element used")
    for row, column in np.ndindex(margins.shape):
        stage = figures[row].get(stages[column])
        color = "white" if shades[row, column] > DARK else "black"
        text = _words(stage) if stage else "missing"
        axis.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    axis.figure.colorbar(image, ax=axis, label="margin")


def _words(stage: StageParity) -> str:
    if stage.max_error == 0:
        return "exact"
    return f"{stage.max_error:.1e}  ({stage.margin:.1%})"


def _draw_units(axis: Axes, ran: Sequence[Comparison], stage: str) -> None:
    units = max(len(one.unit_errors.get(stage, ())) for one in ran)
    missing = (np.nan,) * units  # drawn as nothing
    errors = np.clip([one.unit_errors.get(stage, missing) for one in ran], NOTHING, LARGEST)
    if units == 0:
        axis.set_axis_off()
        return
    image = axis.imshow(errors, norm=LogNorm(), cmap="viridis", aspect="auto")
    axis.set_title(f"largest error of each unit of {stage}", parse_math=False)
    axis.set_xlabel("unit")
    axis.figure.colorbar(image, ax=axis, label="error")
