"""The dashboards: fresh, of Grafana's schema, with fixed identifiers, and complete."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from docs import dashboards
from tests.deploy.test_rules import ALERTS, NAMES
from tests.support.bundles import REPOSITORY

GRAFANA = REPOSITORY / "deploy/grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
UIDS = {"forward-overview", "forward-details", "forward-runbook"}
COLUMNS = 24
QUESTIONS = ("down", "slow", "full", "wrong", "Since when", "What do I do")


def load(path: Path) -> Any:  # noqa: ANN401 (any value of JSON)
    return json.loads(path.read_text())


def panels_of(board: Any) -> list[Any]:  # noqa: ANN401 (any value of JSON)
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def read_by_grafana(board: Any) -> Any:  # noqa: ANN401 (any value of JSON)
    """Return what is left of a dashboard that Grafana's own types have read and written."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(board)))


def test_the_dashboards_are_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert {path.name: path.read_text() for path in FILES} == dashboards.files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_grafanas_types_know_every_field(path: Path) -> None:
    assert read_by_grafana(load(path)) == load(path)


def test_a_field_that_grafana_does_not_know_is_found() -> None:
    board = load(FILES[0])
    panels_of(board)[0]["colour"] = "red"
    assert read_by_grafana(board) != board


def test_identifiers_are_fixed_and_those_of_the_files() -> None:
    assert {load(path)["uid"] for path in FILES} == UIDS
    assert {path.stem for path in FILES} == UIDS
    for path in FILES:
        numbers = [panel["id"] for panel in load(path)["panels"]]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_panel_covers_another(path: Path) -> None:
    places = [panel["gridPos"] for panel in load(path)["panels"]]
    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    for one, other in combinations(places, 2):
        is_beside = any(
            first[at] + first[size] <= second[at]
            for first, second in ((one, other), (other, one))
            for at, size in (("x", "w"), ("y", "h"))
        )
        assert is_beside, (one, other)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_panel_has_a_title_and_says_what_it_shows(path: Path) -> None:
    for panel in panels_of(load(path)):
        assert panel["title"]
        assert panel.get("description") or panel["options"]["content"], panel["title"]


def test_the_first_row_has_the_questions_of_the_night() -> None:
    first = load(GRAFANA / "dashboards/forward-overview.json")["panels"]
    titles = [panel["title"] for panel in first if panel["gridPos"]["y"] == 0]
    assert len(titles) == len(QUESTIONS)
    assert all(question in title for question, title in zip(QUESTIONS, titles, strict=True))


def test_the_runbook_has_a_panel_for_every_alert() -> None:
    runbook = panels_of(load(GRAFANA / "dashboards/forward-runbook.json"))
    assert sorted(panel["title"] for panel in runbook if panel["title"] in NAMES) == NAMES
    assert all("**Do:**" in panel["options"]["content"] for panel in runbook[1:])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_links_lead_to_dashboards_and_queries_to_the_data_source(path: Path) -> None:
    assert set(re.findall(r"/d/([\w-]+)", path.read_text())) <= UIDS
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/forward.yml").read_text())[
        "datasources"
    ]
    expected = {"type": source["type"], "uid": source["uid"]}
    for panel in panels_of(load(path)):
        for target in panel.get("targets", []):
            assert target["datasource"] == panel["datasource"] == expected


def test_the_provider_reads_the_folder_that_the_guide_names() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/forward.yml").read_text())[
        "providers"
    ]
    guide = (REPOSITORY / "docs/guides/monitoring.md").read_text()
    assert f"`{provider['options']['path']}`" in guide


def test_the_guide_lists_every_alert_with_its_severities() -> None:
    guide = (REPOSITORY / "docs/guides/monitoring.md").read_text()
    rows = dict(re.findall(r"^\| `(Forward\w+)` \| ([a-z, ]+) \|", guide, re.M))
    assert sorted(rows) == NAMES
    severities = {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}
    assert {(name, each) for name in rows for each in rows[name].split(", ")} == severities
