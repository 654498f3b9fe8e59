"""A real Prometheus that scrapes a server, and promtool: Debian's package prometheus."""

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.bundles import REPOSITORY
from tests.support.ports import free_port
from tests.support.servers import wait_until

FOLDER = REPOSITORY / "deploy" / "prometheus"
RULES = (FOLDER / "rules/forward-recording.yml", FOLDER / "rules/forward-alerts.yml")
START_SECONDS = 60  # of a machine with much else to do
# Durations of rules: ranges, subqueries and offsets in brackets, and the keys of YAML.
RANGE = re.compile(r"\[(\d+)([smhd])\]")
KEY = re.compile(r"^( *(?:- )?(?:for|interval): )(\d+)([smhd])$", re.M)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def program(name: str) -> str:
    """Return the path of a program of Debian's package prometheus; skip the test without it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}, of Debian's package prometheus")
    return found


def promtool(
    *arguments: str, folder: Path = REPOSITORY, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run promtool, with a text on its standard input."""
    return subprocess.run(
        [program("promtool"), *arguments],
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def quickened(rules: str, factor: int) -> str:
    """Return rules whose durations are so many times shorter: every window, `for` and interval.

    Thresholds stay, so an alert fires for the same cause, only sooner. What compares with the time
    of the day, as the certificate's alert does, has no window and stays, too.
    """

    def shorter(count: str, unit: str) -> str:
        return f"{int(count) * SECONDS[unit] * 1000 // factor}ms"

    rules = RANGE.sub(lambda found: f"[{shorter(found[1], found[2])}]", rules)
    return KEY.sub(lambda found: f"{found[1]}{shorter(found[2], found[3])}", rules)


@dataclass(frozen=True)
class Result:
    """One series of a query's result."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that runs."""

    url: str

    def _get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 (any value of JSON)
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=30) as response:  # noqa: S310 (the test's own)
            return json.load(response)["data"]

    def query(self, expression: str) -> list[Result]:
        """Return the series of an expression as they are now."""
        found = self._get("/api/v1/query", query=expression)["result"]
        return [Result(each["metric"], float(each["value"][1])) for each in found]

    def range(self, expression: str, start: float, end: float, step: float) -> Any:  # noqa: ANN401 (any value of JSON)
        """Return the series of an expression over a time: each `metric` and `values`."""
        return self._get(
            "/api/v1/query_range",
            query=expression,
            start=f"{start:.3f}",
            end=f"{end:.3f}",
            step=f"{step:.3f}",
        )["result"]

    def value(self, expression: str) -> float:
        """Return the one value of an expression."""
        (result,) = self.query(expression)
        return result.value

    def fires(self, name: str, **labels: str) -> bool:
        """Tell if an alert fires, with these of its labels."""
        wanted = {"alertname": name, **labels}
        return any(wanted.items() <= each.items() for each in self.firing())

    def firing(self) -> list[Mapping[str, str]]:
        """Return the labels of the alerts that fire."""
        alerts = self._get("/api/v1/alerts")["alerts"]
        return [each["labels"] for each in alerts if each["state"] == "firing"]

    def wait_for_scrape(self) -> None:
        """Wait until every target has been scraped, from its begin, after now."""
        asked = time.time()
        wait_until(lambda: self._scraped(asked), 30)

    def _scraped(self, asked: float) -> bool:
        times = [each.value for each in self.query("timestamp(up) and up == 1")]
        return bool(times) and min(times) > asked


@contextmanager
def start_prometheus(
    targets: Sequence[str],
    *,
    rules: Sequence[str] = (),
    interval: str = "500ms",
) -> Iterator[Prometheus]:
    """Start a Prometheus that scrapes addresses of metrics ports as the job `forward`.

    Args:
        targets: HOST:PORT of each.
        rules: the texts of rule files.
        interval: between scrapes and evaluations.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [folder / f"rules-{place}.yml" for place, _ in enumerate(rules)]
        for file, text in zip(files, rules, strict=True):
            file.write_text(text)
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(_config(targets, files, interval)))
        port = free_port()
        command = [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]
        log_path = folder / "log"
        with log_path.open("wb") as log, subprocess.Popen(command, stderr=log) as process:
            try:
                prometheus = Prometheus(f"http://127.0.0.1:{port}")
                _wait_until_ready(prometheus, process, log_path)
                yield prometheus
            finally:
                process.kill()


def _config(targets: Sequence[str], files: Sequence[Path], interval: str) -> dict[str, Any]:
    """Return the scrape configuration of deploy/, with other targets and intervals."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {
        "scrape_interval": interval,
        "scrape_timeout": interval,
        "evaluation_interval": interval,
    }
    config["rule_files"] = [str(file) for file in files]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": list(targets)}]
    return config


def _wait_until_ready(
    prometheus: Prometheus, process: subprocess.Popen[bytes], log_path: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{prometheus.url}/-/ready", timeout=5):  # noqa: S310 (the test's own)
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError(f"Prometheus did not become ready:\n{log_path.read_text()}")
