"""Triton's extensions that tools read, by an unchanged tritonclient against a real server."""

import json
import signal
import subprocess
from typing import Any

import pytest

from export.bundle import Bundle
from tests.support.bundles import REPOSITORY, publish_random_bundle
from tests.support.http import request
from tests.support.servers import RunningServer, start_server, wait_until

SCRIPT = REPOSITORY / "tests" / "support" / "triton_extensions.py"
CALL_SECONDS = 120
INDEX = "/v2/repository/index"


def seen_by_tritonclient(python: str, server: RunningServer) -> dict[str, Any]:
    """Return what tritonclient says of a server, by protocol."""
    done = subprocess.run(
        [python, "-I", SCRIPT, server.address, server.http_address],
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def index_of(server: RunningServer, body: bytes = b"") -> list[dict[str, str]]:
    answer = request(server.http_address, INDEX, body, content_type="application/json")
    assert answer.status == 200, answer.body
    entries: list[dict[str, str]] = answer.json()
    return entries


def states(server: RunningServer) -> dict[str, str]:
    return {each["version"]: each["state"] for each in index_of(server)}


def publish(bundle: Bundle) -> Bundle:
    return publish_random_bundle(bundle.path.parent.parent, bundle.manifest.name)


def serving(bundle: Bundle) -> list[str]:
    """Return the arguments of a server of a tiny bundle that looks for versions all the time."""
    folder = ["--models-dir", str(bundle.path.parent.parent), "--model", bundle.manifest.name]
    return [*folder, "--device", "cpu", "--http-port", "0", "--reload-interval", "0.1"]


def test_the_index_has_every_version_across_reloads(tiny: Bundle, triton_python: str) -> None:
    newer = publish(tiny)
    with start_server(*serving(tiny)) as server:
        text = "version 2, which is newer, is served"
        entries = [("2", "READY", ""), ("1", "UNAVAILABLE", text)]
        expected = [
            dict(zip(("name", "version", "state", "reason"), (name, *entry), strict=True))
            for name in ("tiny", "tiny_trace")
            for entry in entries
        ]
        seen = seen_by_tritonclient(triton_python, server)
        assert {protocol: each["index"] for protocol, each in seen.items()} == {
            "grpc": expected,
            "http": expected,
        }
        broken = publish(newer)
        manifest = broken.path / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"tiny"', '"other"'))
        wait_until(lambda: "3" in states(server))
        newest = publish(newer)
        wait_until(lambda: states(server).get("4") == "READY")
        assert newest.manifest.version == 4
        assert states(server) == {"4": "READY", **dict.fromkeys("321", "UNAVAILABLE")}
        assert {each["version"] for each in index_of(server, b'{"ready": true}')} == {"4"}


def test_a_broken_version_is_listed_with_its_failure(tiny: Bundle, triton_python: str) -> None:
    with start_server(*serving(tiny)) as server:
        broken = publish(tiny)
        (broken.path / "model.onnx").write_bytes(b"no model")
        server.process.send_signal(signal.SIGHUP)  # what is incomplete is a failure then
        wait_until(lambda: "model.onnx" in index_of(server)[0]["reason"], 40)
        for entries in seen_by_tritonclient(triton_python, server).values():
            first, second, *_ = entries["index"]
            assert (first["version"], first["state"]) == ("2", "UNAVAILABLE")
            assert "model.onnx" in first["reason"]
            assert (second["version"], second["state"]) == ("1", "READY")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[]", "request: expected a JSON object: got a list"),
        (b'{"ready": 1}', "ready: expected true or false, got 1"),
        (b"{", "request: expected a JSON object: "),
    ],
)
def test_a_wrong_body_of_the_index_is_refused(
    served: RunningServer, body: bytes, text: str
) -> None:
    answer = request(served.http_address, INDEX, body, content_type="application/json")
    assert answer.status == 400
    assert text in answer.json()["error"]
