"""Triton's extensions that tools read, by an unchanged tritonclient against a real server."""

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from export.bundle import Bundle
from forward_client import ForwardClient, ForwardError
from server.observability.buckets import IMAGES_BUCKETS
from tests.support.bundles import REPOSITORY, TINY_SHAPE, publish_random_bundle, random_images
from tests.support.checked_load import CheckedLoad
from tests.support.http import request
from tests.support.servers import RunningServer, Series, scrape, start_server, wait_until

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


IMAGES = random_images(3, TINY_SHAPE)
WRONG = np.zeros((1, 2, 2), np.uint8)
INFERENCE = ("Predict", "PredictStream", "Trace", "Attribute", "ModelInfer")


class Calls:
    """Calls to a server, and what of them its statistics must tell."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.requests: Counter[tuple[str, str]] = Counter()  # by name and version; each of IMAGES
        self.failed: Counter[tuple[str, str]] = Counter()
        self.failed_over_http = 0

    def make(self, version: str, times: int) -> None:
        """Make right and wrong calls of every kind by gRPC and HTTP."""
        for _ in range(times):
            with ForwardClient(self.server.address, timeout_seconds=60) as client:
                self._grpc(client, version)
            self._http(version)

    def _grpc(self, client: ForwardClient, version: str) -> None:
        client.predict(IMAGES)
        answers = list(client.predict_stream([IMAGES, WRONG, IMAGES]))
        assert [isinstance(each, ForwardError) for each in answers] == [False, True, False]
        client.trace(IMAGES)
        client.attribute(IMAGES)
        self.requests["tiny", version] += 3
        self.requests["tiny_trace", version] += 2
        for call in (client.predict, client.trace):
            with pytest.raises(ForwardError):
                call(WRONG)
        self.failed["tiny", version] += 1
        self.failed["tiny_trace", version] += 1

    def _http(self, version: str) -> None:
        for outputs, name in ((["logits"], "tiny"), (["relu"], "tiny_trace")):
            for model in ("tiny", "tiny_trace"):  # the outputs decide, not the name
                assert self._infer(model, outputs) == 200
                self.requests[name, version] += 1
        assert self._infer("tiny", ["softmax"]) == 400
        self.failed["tiny", version] += 1
        self.failed_over_http += 1

    def _infer(self, model: str, outputs: list[str]) -> int:
        tensor = {"name": "images", "datatype": "FP32", "shape": IMAGES.shape}
        body = {
            "inputs": [{**tensor, "data": IMAGES.tolist()}],
            "outputs": [{"name": name} for name in outputs],
        }
        path = f"/v2/models/{model}/infer"
        sent = json.dumps(body).encode()
        return request(self.server.http_address, path, sent, content_type="application/json").status


def by_version(statistics: Sequence[dict[str, Any]], *path: str) -> dict[tuple[str, str], Any]:
    """Return one figure of statistics, where it is not 0, by name and version."""
    found = {}
    for each in statistics:
        value: Any = each
        for name in path:
            value = value[name]
        if value:
            found[each["name"], each["version"]] = value
    return found


def assert_equal_to_scrape(statistics: Sequence[dict[str, Any]], series: Series) -> None:
    """Compare the sums over the versions with the metrics."""
    for name, batcher in (("tiny", "predict"), ("tiny_trace", "trace")):
        of_name = [each for each in statistics if each["name"] == name]
        labels = frozenset({("batcher", batcher)})
        for figure, metric in (("inference", "images_total"), ("execution", "run_images_count")):
            total = sum(each[f"{figure}_count"] for each in of_name)
            assert total == series[f"forward_{metric}", labels]
        for part, metric in (
            ("queue", "queue"),
            ("compute_infer", "run"),
            ("compute_output", "encode"),
        ):
            parts = [each["inference_stats"][part] for each in of_name]
            count = sum(each["count"] for each in parts)
            assert count == series[f"forward_{metric}_seconds_count", labels]
            seconds = sum(each["ns"] for each in parts) / 1e9
            assert seconds == pytest.approx(
                series[f"forward_{metric}_seconds_sum", labels], rel=1e-6
            )
        sizes: Counter[int] = Counter()
        for each in of_name:
            stats = each["inference_stats"]
            assert stats["success"]["count"] == stats["compute_output"]["count"]
            times = [stats[part]["ns"] for part in ("queue", "compute_infer", "compute_output")]
            assert stats["success"]["ns"] == sum(times)
            by_size = [size["compute_infer"]["ns"] for size in each["batch_stats"]]
            # Each is rounded by itself.
            assert abs(sum(by_size) - stats["compute_infer"]["ns"]) <= len(by_size) + 1
            sizes += Counter(
                {size["batch_size"]: size["compute_infer"]["count"] for size in each["batch_stats"]}
            )
        up_to = 0
        for size in map(int, IMAGES_BUCKETS):
            up_to += sizes.pop(size, 0)
            bucket = labels | {("le", str(float(size)))}
            assert up_to == series["forward_run_images_bucket", bucket]
        assert not sizes


def failed_over_grpc(series: Series) -> float:
    """Return how many calls of inference ended with an error over gRPC."""
    found = 0.0
    for (name, labels), value in series.items():
        known = dict(labels)
        if name == "grpc_server_handled_total" and known["grpc_method"] in INFERENCE:
            found += value if known["grpc_code"] != "OK" else 0
    return found


def test_statistics_are_the_clients_counts_across_a_reload(
    tiny: Bundle, triton_python: str
) -> None:
    with start_server(*serving(tiny)) as server:
        calls, before = Calls(server), time.time()
        calls.make("1", 2)
        publish(tiny)
        wait_until(lambda: states(server).get("2") == "READY")
        calls.make("2", 3)
        seen = seen_by_tritonclient(triton_python, server)
        series = scrape(server)
    statistics = seen["grpc"]["statistics"]
    assert statistics == seen["http"]["statistics"]
    assert by_version(statistics, "inference_stats", "queue", "count") == calls.requests
    assert by_version(statistics, "inference_stats", "success", "count") == calls.requests
    images = {each: count * len(IMAGES) for each, count in calls.requests.items()}
    assert by_version(statistics, "inference_count") == images
    assert by_version(statistics, "inference_stats", "fail", "count") == calls.failed
    assert failed_over_grpc(series) + calls.failed_over_http == calls.failed.total()
    assert_equal_to_scrape(statistics, series)
    for each in statistics:
        assert before * 1000 - 1 <= each["last_inference"] <= time.time() * 1000


def test_statistics_of_a_reload_under_load_lose_no_call(tiny: Bundle) -> None:
    load = CheckedLoad()
    load.expect(tiny)
    with start_server(*serving(tiny)) as server:
        with load.on(server):
            for version in (2, 3):
                load.wait_for(version - 1)
                load.expect(publish(tiny))
                load.wait_for(version)
        statistics = request(server.http_address, "/v2/models/tiny/stats").json()["model_stats"]
        series = scrape(server)
    queued = by_version(statistics, "inference_stats", "queue", "count")
    answered = {("tiny", str(version)): count for version, count in load.all_answers.items()}
    assert queued == answered
    assert by_version(statistics, "inference_stats", "success", "count") == answered
    labels = frozenset({("batcher", "predict")})
    assert sum(queued.values()) == series["forward_queue_seconds_count", labels]
    assert [each["version"] for each in statistics] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v2/models/other/stats", 404, "'mnist' version 1 and 'mnist_trace' version 1"),
        ("/v2/models/mnist/versions/7/stats", 404, "version 7 is not served"),
        ("/v2/models/mnist/versions/x/stats", 400, "version: expected a whole number from 1 on"),
    ],
)
def test_statistics_of_what_is_not_there_are_refused(
    served: RunningServer, path: str, status: int, text: str
) -> None:
    answer = request(served.http_address, path)
    assert answer.status == status
    assert text in answer.json()["error"]


def test_statistics_are_listed_for_one_name_or_all(served: RunningServer) -> None:
    for path, names in (
        ("/v2/models/stats", ["mnist", "mnist_trace"]),
        ("/v2/models/mnist/stats", ["mnist"]),
        ("/v2/models/mnist_trace/versions/1/stats", ["mnist_trace"]),
    ):
        found = request(served.http_address, path).json()["model_stats"]
        assert [(each["name"], each["version"]) for each in found] == [(n, "1") for n in names]


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
