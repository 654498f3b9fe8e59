"""The rules of Prometheus: right by promtool, tested, explained, and of metrics that there are."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.bundles import REPOSITORY
from tests.support.prometheus import FOLDER, RULES, promtool, quickened

CASES = sorted((FOLDER / "tests").glob("*.yml"))
RUNBOOK = REPOSITORY / "docs/guides/runbook.md"


def rules_of(path: Path, kind: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load(path.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


ALERTS = [rule for path in RULES for rule in rules_of(path, "alert")]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def test_the_configuration_and_its_rules_are_right() -> None:
    done = promtool("check", "config", "deploy/prometheus/prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert "2 rule files found" in done.stdout


def test_the_rules_pass_every_lint() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_cases_of_an_alert_hold(path: Path) -> None:
    done = promtool("test", "rules", path.name, folder=path.parent)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_cases_have_an_alert_fire_end_and_stay_silent(name: str) -> None:
    cases = yaml.safe_load((FOLDER / "tests" / f"{name}.yml").read_text())["tests"]
    fires = [[bool(each["exp_alerts"]) for each in case["alert_rule_test"]] for case in cases]
    assert {each["alertname"] for case in cases for each in case["alert_rule_test"]} == {name}
    assert any(True in case and not case[-1] for case in fires), "it never ends"
    assert any(True in case and not case[0] for case in fires), "it fires from the start"
    assert any(True not in case for case in fires), "it is never silent"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_rule_of_an_alert_has_a_case_in_which_it_fires(rule: dict[str, Any]) -> None:
    cases = yaml.safe_load((FOLDER / "tests" / f"{rule['alert']}.yml").read_text())["tests"]
    expected = [
        alert
        for case in cases
        for each in case["alert_rule_test"]
        for alert in each["exp_alerts"]
        if rule["labels"].items() <= alert["exp_labels"].items()
    ]
    assert expected
    assert all(
        each["exp_annotations"]["summary"] == rule["annotations"]["summary"] for each in expected
    )


def test_every_case_is_of_an_alert() -> None:
    assert [path.stem for path in CASES] == NAMES


@pytest.mark.parametrize("waits", ["wait_for", "wait_for_end"])
def test_every_alert_is_provoked_on_a_real_server_and_seen_to_end(waits: str) -> None:
    """By the calls in test_alerts.py."""
    source = ast.parse(Path(__file__).with_name("test_alerts.py").read_text())
    calls = [each for each in ast.walk(source) if isinstance(each, ast.Call)]
    names = [
        str(argument.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == waits
        for argument in call.args
        if isinstance(argument, ast.Constant)
    ]
    assert sorted(set(names)) == NAMES


def test_every_alert_leads_to_its_paragraph_and_every_paragraph_to_an_alert() -> None:
    paragraphs = re.findall(r"^### (\w+)$", RUNBOOK.read_text(), re.M)
    assert sorted(paragraphs) == NAMES
    for rule in ALERTS:
        page, anchor = rule["annotations"]["runbook_url"].split("#")
        assert REPOSITORY / page == RUNBOOK
        assert anchor == rule["alert"].lower()


@pytest.mark.parametrize("name", NAMES)
def test_a_paragraph_says_what_whom_where_and_what_to_do(name: str) -> None:
    _, _, rest = RUNBOOK.read_text().partition(f"\n### {name}\n")
    paragraph = re.split(r"^##", rest, maxsplit=1, flags=re.M)[0]
    words = ("**It means**", "**Affected:**", "**Look at**", "**Do:**")
    assert [word for word in words if word.strip("*:") not in paragraph] == []


def test_every_severity_is_page_or_ticket() -> None:
    assert {rule["labels"]["severity"] for rule in ALERTS} == {"page", "ticket"}


def test_quickened_rules_have_no_long_duration_left() -> None:
    rules = "- expr: rate(a[5m]) > 0\n  for: 10m\n- interval: 2m\n  text: in 5m, [1h]"
    assert quickened(rules, 60) == (
        "- expr: rate(a[5000ms]) > 0\n  for: 10000ms\n- interval: 2000ms\n  text: in 5m, [60000ms]"
    )
