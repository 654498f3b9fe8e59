"""What rules, dashboards and documents ask for is there, in a scrape of a real server."""

import json
import re
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.bundles import REPOSITORY
from tests.support.certificates import Authority
from tests.support.counting import CountingClient, server_options
from tests.support.prometheus import RULES, promtool, start_prometheus
from tests.support.servers import RunningServer, start_server

pytestmark = pytest.mark.one_transport

DASHBOARDS = sorted((REPOSITORY / "deploy/grafana/dashboards").glob("*.json"))
PAGES = tuple(
    REPOSITORY / "docs" / name
    for name in ("reference/metrics.md", "guides/runbook.md", "guides/monitoring.md")
)
# What the Prometheus client, Prometheus itself and we name; a label is no name of ours.
NAME = re.compile(r"\b(?:job:)?(?:forward|grpc_server|process|python)_[a-z0-9_]+(?::\w+)?(?![\w*])")
CODE = re.compile(r"`([^`]+)`")
SUFFIXES = ("_bucket", "_count", "_sum")
# Of Grafana, which Prometheus does not know.
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}
LABELS = ("forward_native",)  # looks like a metric and is a module


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a server with all options shows after good and bad calls of every protocol."""
    folder = tmp_path_factory.mktemp("scraped")
    authority = Authority(folder / "tls")
    traced = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    with start_server(*server_options(folder, authority), **traced) as server:
        CountingClient(server, authority).load(1, 60)
        yield text_of(server)


def text_of(server: RunningServer) -> str:
    with urllib.request.urlopen(server.metrics_url, timeout=30) as response:  # noqa: S310 (the test's own server)
        text: str = response.read().decode()
    return text


@pytest.fixture(scope="module")
def names(scraped: str) -> set[str]:
    """The names of samples, of families, and what rules record.

    forward_drift_psi has no sample before there are 500 images; tests/deploy/test_alerts.py waits.
    """
    samples = {re.split(r"[{ ]", line)[0] for line in scraped.splitlines() if line[:1] != "#"}
    families = set(re.findall(r"^# TYPE (\w+)", scraped, re.M))
    recorded = {
        rule["record"]
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    return samples | families | recorded


def expressions(value: Any) -> Iterator[str]:  # noqa: ANN401 (as JSON and YAML have it)
    """Yield what a file of rules or a dashboard asks Prometheus for."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key in ("expr", "query") and isinstance(each, str) and each:
                yield each
            else:
                yield from expressions(each)
    elif isinstance(value, list):
        for each in value:
            yield from expressions(each)


def unknown(texts: Iterable[str], names: set[str]) -> set[str]:
    found = {name for text in texts for name in NAME.findall(text)}
    return found - names - set(LABELS)


def test_the_metrics_of_a_live_scrape_pass_every_lint(scraped: str) -> None:
    done = promtool("check", "metrics", text=scraped)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_metric_of_the_rules_is_scraped(path: Path, names: set[str]) -> None:
    asked = list(expressions(yaml.safe_load(path.read_text())))
    assert len(asked) > 10
    assert unknown(asked, names) == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_metric_of_a_dashboard_is_scraped(path: Path, names: set[str]) -> None:
    assert unknown(expressions(json.loads(path.read_text())), names) == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_metric_of_the_documents_is_scraped(path: Path, names: set[str]) -> None:
    assert unknown(CODE.findall(path.read_text()), names) == set()


def test_every_metric_of_ours_is_on_a_dashboard_or_in_a_rule(names: set[str]) -> None:
    asked = [
        text
        for path in (*RULES, *DASHBOARDS)
        for text in expressions(yaml.safe_load(path.read_text()))
    ]
    used = {name for text in asked for name in NAME.findall(text)}
    ours = {name for name in names if name.startswith(("forward_", "grpc_"))}
    families = {name for name in ours if not name.endswith(("_created", *SUFFIXES))}
    unused = {name for name in families if not {name, *(name + end for end in SUFFIXES)} & used}
    assert unused == set()


def test_a_metric_that_is_not_there_is_found(names: set[str]) -> None:
    assert unknown(["rate(forward_none_total[5m]) / job:forward_none:rate5m"], names) == {
        "forward_none_total",
        "job:forward_none:rate5m",
    }


def test_prometheus_understands_every_query_of_the_dashboards(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    asked = [
        each
        for path in DASHBOARDS
        for each in expressions(json.loads(path.read_text()))
        if not each.startswith("label_values(")  # Grafana's own
    ]
    for variable, value in VARIABLES.items():
        asked = [each.replace(variable, value) for each in asked]
    recorded = [{"record": f"query:{n}", "expr": each} for n, each in enumerate(asked)]
    rules.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    done = promtool("check", "rules", str(rules))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(asked)} rules found" in done.stdout


def test_prometheus_understands_every_query_of_the_documents() -> None:
    """A part of an expression is none, so only those with a bracket."""
    asked = {
        text
        for page in PAGES
        for text in CODE.findall(page.read_text())
        if NAME.search(text) and re.search(r"[({]", text)
    }
    assert len(asked) > 20
    with start_prometheus([]) as prometheus:
        for text in asked:
            prometheus.query(text)
