"""The dashboards of Grafana, deploy/grafana/dashboards/, as code."""

from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from docs.dashboards.details import details
from docs.dashboards.overview import overview
from docs.dashboards.runbook import runbook

FOLDER = Path("deploy/grafana/dashboards")
RUNBOOK = Path("docs/guides/runbook.md")


def files() -> Mapping[str, str]:
    """Return the dashboards in JSON, by the names of their files."""
    boards = (overview(), details(), runbook(RUNBOOK.read_text()))
    return dict(_file(board) for board in boards)


def _file(board: Dashboard) -> tuple[str, str]:
    built = board.build()
    for number, panel in enumerate(built.panels or [], 1):
        panel.id_val = number
    return f"{built.uid}.json", JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"
