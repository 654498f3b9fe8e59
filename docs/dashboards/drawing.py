"""Dashboards drawn by matplotlib, with what Prometheus answers to their own queries."""

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image

from tests.support.prometheus import Prometheus

Panel = Mapping[str, Any]  # of a dashboard, as JSON has it
COLUMNS = 24
COLUMN_INCHES, ROW_INCHES = 0.67, 0.36
DOTS_PER_INCH = 100
CHARACTERS_OF_COLUMN = 8.2  # of a panel of text
TABLE_ROWS, TABLE_CHARACTERS, CELL_CHARACTERS = 12, 100, 24
LEGEND_CHARACTERS = 62
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
GAP = 0.12  # of a column, between panels
POINTS = 240  # of a line
COLORS = {
    "green": "#2a7f45",
    "yellow": "#b58900",
    "red": "#c4162a",
    "blue": "#1f60c4",
    "orange": "#d9730d",
}
GROUND, PAPER, INK, PALE = "#f4f5f5", "white", "#24292e", "#8e8e8e"


@dataclass(frozen=True)
class Run:
    """A time that Prometheus has watched, and how to word a query for so short a one."""

    prometheus: Prometheus
    start: float
    end: float
    reworded: Callable[[str], str]

    def lines(self, expression: str) -> Any:  # noqa: ANN401 (any value of JSON)
        """Return the series of an expression over the time."""
        step = (self.end - self.start) / POINTS
        return self.prometheus.range(self.reworded(expression), self.start, self.end, step)

    def now(self, expression: str) -> Any:  # noqa: ANN401 (any value of JSON)
        """Return the series of an expression at the end of the time: each `metric` and `value`."""
        found = self.prometheus.range(self.reworded(expression), self.end, self.end, 1)
        return [(each["metric"], float(each["values"][0][1])) for each in found]


def draw(board: Mapping[str, Any], run: Run, last_row: int) -> bytes:
    """Return the picture of a dashboard, down to a row of its grid, as PNG."""
    panels = [panel for panel in board["panels"] if panel["gridPos"]["y"] < last_row]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure((COLUMNS * COLUMN_INCHES, height * ROW_INCHES), facecolor=GROUND)
    marks = [
        (float(time), annotation["iconColor"])
        for annotation in board["annotations"].get("list", [])
        for series in run.lines(annotation["expr"])
        for time, _ in series["values"][:1]
    ]
    for panel in panels:
        place = panel["gridPos"]
        left, width = (place["x"] + GAP) / COLUMNS, (place["w"] - 2 * GAP) / COLUMNS
        low, tall = 1 - (place["y"] + place["h"] - GAP) / height, (place["h"] - 2 * GAP) / height
        axes = figure.add_axes((left, low, width, tall), facecolor=PAPER)
        axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
        axes.spines[:].set_visible(False)
        color = "white" if panel["type"] == "stat" else INK
        title = {"fontsize": 10, "fontweight": "bold", "color": color}
        axes.set_title(f"  {panel['title']}", title, loc="left", y=1, pad=-15)
        PAINTERS[panel["type"]](axes, panel, run, marks)
    figure.set_dpi(DOTS_PER_INCH)
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no annotations
    canvas.draw()
    drawn, file = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), BytesIO()
    drawn.quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def _row(axes: Axes, _panel: Panel, _run: Run, _marks: object) -> None:
    axes.set_facecolor(GROUND)


def _text(axes: Axes, panel: Panel, _run: Run, _marks: object) -> None:
    plain = LINK.sub(r"\1", panel["options"]["content"]).replace("**", "")
    width = int(panel["gridPos"]["w"] * CHARACTERS_OF_COLUMN)
    lines = [line for part in plain.splitlines() for line in textwrap.wrap(part, width)]
    axes.text(0.04, 0.8, "\n".join(lines), va="top", fontsize=8, linespacing=1.25, color=INK)


def _numbers(axes: Axes, panel: Panel, run: Run, _marks: object) -> None:
    """Draw each number on the colour of its limits; a single one has no legend, as in Grafana."""
    defaults = panel["fieldConfig"]["defaults"]
    found = [
        (target["legendFormat"], value)
        for target in panel["targets"]
        for _, value in run.now(target["expr"])
        if not math.isnan(value)
    ]
    if not found:
        axes.set_facecolor(COLORS["green"])
        _write(axes, 0.5, 0.44, defaults["noValue"], 13)
    words = {
        key: word["text"]
        for mapping in defaults.get("mappings") or []
        for key, word in mapping["options"].items()
    }
    for number, (legend, value) in enumerate(found):
        unit, steps = _own_field(panel, legend)
        reached = [each for each in steps if each["value"] is None or value >= each["value"]]
        left, width = number / len(found), 1 / len(found)
        axes.axvspan(left, left + width, color=COLORS[reached[-1]["color"]])
        shown = words.get(f"{value:g}", formatted(value, unit))
        _write(axes, left + width / 2, 0.46, shown, 20 if len(shown) < 9 else 13)
        if len(found) > 1:
            _write(axes, left + width / 2, 0.12, legend, 9)


def _own_field(panel: Panel, legend: str) -> tuple[str, Any]:
    """Return the unit and the steps of the limits of a number."""
    config = panel["fieldConfig"]
    own = config["defaults"]
    for override in config["overrides"]:
        if override["matcher"]["options"] == legend:
            own = {each["id"]: each["value"] for each in override["properties"]}
    return own["unit"], own["thresholds"]["steps"]


def _write(axes: Axes, x: float, y: float, text: str, size: int) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color="white")


def _table(axes: Axes, panel: Panel, run: Run, _marks: object) -> None:
    """Draw the rows, the first column as the links that they are; the number is a time."""
    organised = panel["transformations"][0]["options"]
    names: Mapping[str, str] = organised["renameByName"]
    rows = [
        {**labels, "Value": f"{run.end - value / 1000:.0f} s ago"}
        for labels, value in run.now(panel["targets"][0]["expr"])
    ]
    rows.sort(key=lambda row: row.get("alertname", ""))
    shown = {name for row in rows for name in row} - organised["excludeByName"].keys()
    columns = sorted(shown, key=lambda name: (name != "alertname", name == "Value", name))
    cells = [[names.get(name, name) for name in columns]]
    cells += [[row.get(name, "")[:CELL_CHARACTERS] for name in columns] for row in rows]
    left = 0.02
    for at, column in enumerate(columns):
        color = COLORS["blue"] if column == "alertname" else INK
        for place, line in enumerate(cells[:TABLE_ROWS]):
            y = 0.83 - 0.065 * place
            axes.text(left, y, line[at], va="top", fontsize=8, color=color if place else PALE)
        left += (max(len(line[at]) for line in cells) + 2) / TABLE_CHARACTERS


def _lines(axes: Axes, panel: Panel, run: Run, marks: Sequence[tuple[float, str]]) -> None:
    inner = axes.inset_axes((0.1, 0.24, 0.87, 0.6), facecolor=PAPER)
    defaults = panel["fieldConfig"]["defaults"]
    for legend, points in _series(panel, run):
        inner.plot(*zip(*points, strict=True), linewidth=1.3, label=legend)
    for moment, color in marks:
        inner.axvline(moment - run.start, color=COLORS[color], linewidth=0.8, alpha=0.6)
    top = inner.get_ylim()[1]
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is not None and step["value"] < 3 * top:
            inner.axhline(step["value"], color=COLORS[step["color"]], linestyle="--", linewidth=0.9)
    inner.set_xlim(0, run.end - run.start)
    inner.set_ylim(bottom=0)
    inner.tick_params(labelsize=7, colors=INK, length=2)
    inner.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    unit = defaults["unit"]
    inner.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatted(value, unit)))
    inner.grid(visible=True, color="#e3e4e5", linewidth=0.6)
    inner.spines[["top", "right"]].set_visible(False)
    _legend(inner)


def _series(panel: Panel, run: Run) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Yield the legend and the points of each line that has any."""
    for target in panel["targets"]:
        for series in run.lines(target["expr"]):
            legend: str = target["legendFormat"]
            for label, value in series["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", value)
            points = [(float(time) - run.start, float(value)) for time, value in series["values"]]
            if not all(math.isnan(value) for _, value in points):
                yield legend, points


def _legend(axes: Axes) -> None:
    """Name the lines in two rows below, as many as there is room for."""
    handles, names = axes.get_legend_handles_labels()
    if not names:
        return
    columns = max(1, min(4, LEGEND_CHARACTERS // (max(map(len, names)) + 4)))
    axes.legend(
        handles[: 2 * columns],
        names[: 2 * columns],
        loc="upper left",
        bbox_to_anchor=(-0.09, -0.13),
        ncols=columns,
        fontsize=7,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.2,
    )


def formatted(value: float, unit: str) -> str:
    """Return a number in its unit, as short as Grafana has it."""
    match unit:
        case "percentunit":
            return f"{100 * value:.3g}%"
        case "s":
            return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
        case "dtdurations":
            return f"{value:.0f} s"
        case "bytes":
            unit, size = ("MiB", 2**20) if value >= 2**20 else ("B", 1)
            return f"{value / size:.3g} {unit}"
        case _:
            return f"{value:.3g}" if abs(value) < 1000 else f"{value / 1000:.3g} K"


PAINTERS: Mapping[str, Callable[[Axes, Panel, Run, Any], None]] = {
    "row": _row,
    "text": _text,
    "stat": _numbers,
    "table": _table,
    "timeseries": _lines,
}
