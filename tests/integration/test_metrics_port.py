"""The port of the metrics: what it answers, by path, method and name."""

import http.client
import urllib.parse
from typing import Any

import grpc
import pytest
from prometheus_client.openmetrics import parser as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers import RunningServer, scrape

pytestmark = pytest.mark.one_transport

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def ask(
    server: RunningServer, method: str, path: str, accept: str = "*/*"
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.ready["metrics_port"], timeout=20)
    try:
        connection.request(method, path, headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def series(text: str) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def named(server: RunningServer, *names: str) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    query = urllib.parse.urlencode([("name[]", name) for name in names])
    return series(ask(server, "GET", f"/metrics?{query}")[2])


def test_each_sample_is_found_by_its_name(served: RunningServer) -> None:
    everything = set(scrape(served))
    names = {name for name, _ in everything}
    assert {"python_info", "forward_run_seconds_bucket", "forward_model_info"} <= names
    for name in names:
        assert named(served, name) == {each for each in everything if each[0] == name}, name
    assert set(scrape(served)) == everything, "what was asked for before must not matter"


def test_each_family_is_found_by_its_name(served: RunningServer) -> None:
    text = ask(served, "GET", "/metrics", OPEN_METRICS)[2]
    parse: Any = open_metrics.text_string_to_metric_families  # it has no types
    for family in parse(text):
        # A family of a counter has the name of its samples without _total.
        expected = {each.name for each in family.samples}
        found = {name for name, _ in named(served, family.name)}
        assert found == expected, family.name


def test_name_parameters_select_their_families(served: RunningServer) -> None:
    both = named(served, "forward_images_total", "forward_queue_images")
    assert {name for name, _ in both} == {"forward_images_total", "forward_queue_images"}
    assert named(served, "up") == set()


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "/favicon.ico", "/forward", "/a/metrics"])
def test_other_paths_are_not_found(served: RunningServer, path: str) -> None:
    status, _, body = ask(served, "GET", path)
    assert status == 404
    assert body == "nothing is here; the metrics are at /metrics\n"


def test_the_root_says_where_the_metrics_are(served: RunningServer) -> None:
    status, _, body = ask(served, "GET", "/?x=1")
    assert (status, body) == (200, "the metrics are at /metrics\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_not_allowed(served: RunningServer, method: str) -> None:
    status, headers, body = ask(served, method, "/metrics")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert body == "expected GET or HEAD\n"


@pytest.mark.parametrize(("path", "status"), [("/metrics?name[]=python_info", 200), ("/x", 404)])
def test_head_is_get_without_the_body(served: RunningServer, path: str, status: int) -> None:
    got, head = ask(served, "GET", path), ask(served, "HEAD", path)
    assert got[0] == head[0] == status
    assert head[2] == ""
    assert {**got[1], "Date": ""} == {**head[1], "Date": ""}
    assert int(head[1]["Content-Length"]) == len(got[2]) > 0


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_sampled_trace_is_an_exemplar_of_open_metrics(served: RunningServer, flags: str) -> None:
    trace = f"4bf92f3577b34da6a3ce929d0e0e47{flags}"
    with grpc.insecure_channel(served.address) as channel:
        get_model: Any = channel.unary_unary("/forward.v1.ForwardService/GetModel")
        metadata = [("traceparent", f"00-{trace}-00f067aa0ba902b7-{flags}")]
        get_model(b"", metadata=metadata, timeout=20)
    parse: Any = open_metrics.text_string_to_metric_families
    exemplars = [
        (sample.name, sample.labels["grpc_method"], sample.exemplar.value)
        for family in parse(ask(served, "GET", "/metrics", OPEN_METRICS)[2])
        for sample in family.samples
        if sample.exemplar and sample.exemplar.labels == {"trace_id": trace}
    ]
    expected = [("grpc_server_handling_seconds_bucket", "GetModel")] if flags == "01" else []
    assert [each[:2] for each in exemplars] == expected
    assert all(0 < each[2] < 20 for each in exemplars)
    assert trace not in ask(served, "GET", "/metrics")[2]
