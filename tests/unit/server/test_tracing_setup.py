"""Whether calls are traced: by OpenTelemetry's variables, and only if it is installed."""

import json
import os
import subprocess
import sys

import pytest

from server.errors import StartError
from server.observability.tracing import open_tracing
from tests.support.bundles import REPOSITORY

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}
# `blocked` can't be imported; at the end it prints what was imported of OpenTelemetry's SDK.
PROGRAM = """
import json, os, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
import server.__main__
from server.observability.logging import configure_logs
configure_logs("info", "json")
from server.observability.tracing import open_tracing
print(open_tracing(os.environ) is not None, file=sys.stderr)
parts = ["opentelemetry." + name for name in ("sdk", "exporter", "proto")]
parts.append("server.observability.spans")
print(*(name for name in sys.modules if name.startswith(tuple(parts)) and sys.modules[name]))
"""


def run(blocked: list[str], **variables: str) -> tuple[str, str]:
    """Return what was imported, and the log, of a program that traces if it can."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(blocked)],
        cwd=REPOSITORY,
        env=environment | variables,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SERVICE_NAME": "forward"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "True"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["nothing", "empty", "a name alone", "disabled", "no exporter"],
)
def test_without_a_receiver_nothing_is_imported(variables: dict[str, str]) -> None:
    imported, log = run([], **variables)
    assert (imported, log) == ("", "False\n")


@pytest.mark.parametrize(
    "missing", ["opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter"]
)
def test_a_receiver_without_the_extra_is_logged(missing: str) -> None:
    _, log = run([missing], **ENDPOINT)
    assert "pip install 'forward-server[otel]'" in log
    assert log.endswith("False\n")


def test_with_both_it_traces() -> None:
    imported, log = run([], **ENDPOINT)
    assert log.endswith("True\n")
    assert "server.observability.spans" in imported.split()


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "expected the protocol grpc or http/protobuf, got 'http/json'",
        ),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "expected otlp or none, got 'zipkin'"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "max_queue_size must be a positive integer"),
    ],
    ids=["protocol", "exporter", "queue"],
)
def test_a_variable_that_is_wrong_stops_the_start(
    variables: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StartError, match=text):
        open_tracing(ENDPOINT | variables)
