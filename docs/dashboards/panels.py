"""Panels of the dashboards: what each asks Prometheus for, and how Grafana shows it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, text
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

SOURCE = models.DataSourceRef(type_val="prometheus", uid="forward-prometheus")
# The servers that the variable of a dashboard chooses; for metrics of ours, and of others.
OURS = 'instance=~"$instance"'
THEIRS = f'job="forward", {OURS}'
GREEN, YELLOW, RED = "green", "yellow", "red"
LETTERS = "ABCDEFGH"

Panels = Iterator[Builder[models.Panel]]

Unit = Literal["short", "s", "reqps", "cps", "percentunit", "bytes", "dtdurations", "d", "none"]


@dataclass(frozen=True)
class Query:
    """An expression, and what its series are called."""

    expression: str
    legend: str = ""


def rate(metric: str, by: str, matcher: str = OURS) -> str:
    """Return the expression of a counter's rate, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{matcher}}}[$__rate_interval]))"


@dataclass(frozen=True)
class Limits:
    """From which values on a panel is yellow and red."""

    yellow: float | None = None
    red: float | None = None

    def build(self) -> dashboard.ThresholdsConfig:
        steps = [models.Threshold(color=GREEN)]
        steps += [
            models.Threshold(value=value, color=color)
            for value, color in ((self.yellow, YELLOW), (self.red, RED))
            if value is not None
        ]
        return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


NONE = Limits()


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: Unit = "short",
    limits: Limits = NONE,
    width: int = 8,
) -> Builder[models.Panel]:
    """Return a panel of lines over time; limits are dashed lines."""
    panel = (
        series.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .fill_opacity(8)
        .height(8)
        .span(width)
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
        )
        .targets([_target(query, place) for place, query in enumerate(queries)])
    )
    if limits is not NONE:
        dashed = common.GraphThresholdsStyleConfig().mode(
            common_models.GraphThresholdsStyleMode.DASHED
        )
        panel = panel.thresholds(limits.build()).thresholds_style(dashed)
    return panel


def numbers(
    title: str, description: str, *queries: Query, unit: Unit = "short", limits: Limits = NONE
) -> stat.Panel:
    """Return a panel of large numbers as they are now, on the colour of their limits."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .height(5)
        .span(4)
        .no_value("no data")
        .thresholds(limits.build())
        .color_mode(common_models.BigValueColorMode.BACKGROUND)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets([_target(query, place) for place, query in enumerate(queries)])
    )


def with_other(panel: stat.Panel, legend: str, unit: Unit, limits: Limits) -> stat.Panel:
    """Give one of the numbers a unit and limits of its own."""
    properties = [
        models.DynamicConfigValue("unit", unit),
        models.DynamicConfigValue("thresholds", limits.build().build().to_json()),
    ]
    return panel.override_by_name(legend, properties)


def with_word(panel: stat.Panel, number: str, word: str) -> stat.Panel:
    """Show a word in the place of a number."""
    mapped = models.ValueMap({number: models.ValueMappingResult(text=word)})
    return panel.mappings([mapped])


def rows(
    title: str, description: str, expression: str, hidden: Sequence[str], names: Mapping[str, str]
) -> table.Panel:
    """Return a table with a row for each series and a column for each label.

    Args:
        title: of the panel.
        description: what its rows say.
        expression: whose series they are.
        hidden: labels that are not shown.
        names: of columns, by their labels; the number's label is `Value`.
    """
    target = _target(Query(expression), 0).instant().format(PromQueryFormat.TABLE)
    organised = models.DataTransformerConfig(
        "organize",
        options={"excludeByName": dict.fromkeys(hidden, True), "renameByName": dict(names)},
    )
    return (
        table.Panel()
        .align(common_models.FieldTextAlignment.AUTO)
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(8)
        .span(12)
        .targets([target])
        .transformations([organised])
    )


def with_link(panel: table.Panel, column: str, url: str) -> table.Panel:
    """Have the cells of a column lead to another dashboard."""
    link = {"title": "What to do", "url": url, "targetBlank": False}
    return panel.override_by_name(column, [models.DynamicConfigValue("links", [link])])


def words(title: str, content: str, *, width: int = 4, height: int = 5) -> text.Panel:
    """Return a panel of text, in Markdown."""
    return (
        text.Panel()
        .title(title)
        .mode(TextMode.MARKDOWN)
        .content(content)
        .span(width)
        .height(height)
    )


def _target(query: Query, place: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .ref_id(LETTERS[place])
        .datasource(SOURCE)
        .expr(query.expression)
        .legend_format(query.legend)
    )


def page(uid: str, title: str, description: str, since: str = "now-6h") -> dashboard.Dashboard:
    """Return a dashboard without panels."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["forward"])
        .time(since, "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("Forward")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["forward"])
            .include_vars(True)
            .keep_time(True)
        )
    )


def instances() -> dashboard.QueryVariable:
    """Return the variable that chooses servers."""
    return (
        dashboard.QueryVariable("instance")
        .label("Server")
        .datasource(SOURCE)
        .query('label_values(up{job="forward"}, instance)')
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def page_of_servers(uid: str, title: str, description: str) -> dashboard.Dashboard:
    """Return a dashboard without panels, of the servers that its reader chooses."""
    return page(uid, title, description).with_variable(instances())


def event(name: str, expression: str, color: str) -> dashboard.AnnotationQuery:
    """Return what marks a time in every panel."""
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expression)
    )
