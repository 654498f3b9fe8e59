"""The Open Inference Protocol over REST, by plain HTTP against real servers."""

import gzip
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import Bundle
from forward_client import ForwardClient
from server.transport.http.compression import chosen_coding
from tests.support.bundles import random_images
from tests.support.http import Answer, request
from tests.support.servers import (
    RunningServer,
    metric,
    scrape,
    start_held_server,
    start_server,
    wait_until,
)

pytestmark = pytest.mark.one_transport

FLOATS = random_images(2, (28, 28), seed=8)
BYTES = np.round(FLOATS * 255).astype(np.uint8)
PATH = "/v2/models/mnist/infer"
BINARY = {"binary_data_output": True}
LENGTH = "inference-header-content-length"


def document(array: np.ndarray, *outputs: str, **fields: object) -> dict[str, Any]:
    """Return a request with the elements in JSON."""
    datatype = "UINT8" if array.dtype == np.uint8 else "FP32"
    tensor = {"name": "images", "datatype": datatype, "shape": list(array.shape)}
    wanted = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    return {"inputs": [{**tensor, "data": array.tolist()}], **wanted, **fields}


def infer(address: str, body: object, path: str = PATH, **headers: str) -> Answer:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers.setdefault("content_type", "application/json")
    return request(address, path, sent, **headers)


def values_of(answer: Answer) -> dict[str, np.ndarray]:
    """Return the outputs of a response, from its JSON and its binary data."""
    assert answer.status == 200, answer.body
    end = int(answer.headers.get(LENGTH, len(answer.body)))
    at, found = end, {}
    for output in json.loads(answer.body[:end])["outputs"]:
        if "data" in output:
            array = np.array(output["data"], np.float32)
        else:
            size = output["parameters"]["binary_data_size"]
            array, at = np.frombuffer(answer.body[at : at + size], "<f4"), at + size
        found[output["name"]] = array.reshape(output["shape"])
    assert at == len(answer.body)
    return found


@pytest.mark.parametrize("array", [FLOATS, BYTES], ids=["float", "uint8"])
def test_json_gets_the_logits_of_predict(
    served: RunningServer, client: ForwardClient, array: np.ndarray
) -> None:
    answer = infer(served.http_address, document(array, id="7"))
    assert values_of(answer)["logits"].tobytes() == client.predict(array).logits.tobytes()
    assert answer.json()["id"] == "7"
    assert answer.headers["content-type"] == "application/json"


def test_a_version_in_the_path_is_checked(served: RunningServer) -> None:
    path = "/v2/models/mnist/versions/{}/infer"
    assert infer(served.http_address, document(BYTES), path.format(1)).status == 200
    missing = infer(served.http_address, document(BYTES), path.format(7))
    assert missing.status == 404
    assert "'mnist' version 7 is not served" in missing.json()["error"]


def test_json_and_binary_outputs_may_stand_side_by_side(
    served: RunningServer, client: ForwardClient
) -> None:
    body = document(BYTES, "relu", "logits")
    body["outputs"][0]["parameters"] = {"binary_data": True}
    answer = infer(served.http_address, body)
    assert answer.headers["content-type"] == "application/octet-stream"
    found = values_of(answer)
    (relu,) = client.trace(BYTES, {"relu": "full"}).stages
    assert relu.values is not None
    assert found["relu"].tobytes() == relu.values.tobytes()
    assert found["logits"].tobytes() == client.predict(BYTES).logits.tobytes()


def test_a_body_without_json_is_one_image(served: RunningServer, client: ForwardClient) -> None:
    headers = {LENGTH: "0", "content-type": "application/octet-stream"}
    answer = infer(served.http_address, BYTES[0].tobytes(), **headers)
    assert values_of(answer)["logits"].tobytes() == client.predict(BYTES[:1]).logits.tobytes()
    short = infer(served.http_address, bytes(783), **headers)
    assert short.status == 400
    assert "inputs[0].data: expected 784 bytes" in short.json()["error"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bodies_are_compressed_both_ways(served: RunningServer, coding: str) -> None:
    body = json.dumps(document(BYTES, "relu", parameters=BINARY)).encode()
    packed = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    answer = infer(
        served.http_address, packed, content_encoding=coding, accept_encoding=f"br, {coding}"
    )
    assert answer.headers["content-encoding"] == coding
    content = gzip.decompress(answer.body) if coding == "gzip" else zlib.decompress(answer.body)
    plain = infer(served.http_address, body)
    assert content == plain.body
    assert answer.headers[LENGTH] == plain.headers[LENGTH]
    assert plain.headers["vary"] == "Accept-Encoding"


def test_only_large_outputs_are_compressed(served: RunningServer) -> None:
    accepted = {"accept_encoding": "gzip, deflate"}
    small = infer(served.http_address, document(BYTES), **accepted)
    wrong = infer(served.http_address, document(BYTES, *["x" * 60] * 20), **accepted)
    path = "/v2/models/mnist_trace/config"
    config = request(served.http_address, path, accept_encoding="gzip, deflate")
    assert [each.status for each in (small, wrong, config)] == [200, 400, 200]
    for each in (small, wrong, config):
        each.json()
        assert "content-encoding" not in each.headers


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("gzip;q=0", None),
        ("*", "gzip"),
        ("*;q=0.5, gzip;q=0", "deflate"),
        ("identity, gzip;q=0.5", None),
        ("br, identity;q=0", None),
        ("gzip;q=high, deflate;q=0.1", "deflate"),
        (";;,=", None),
    ],
)
def test_the_coding_is_the_one_preferred_by_weight(accepted: str, expected: str | None) -> None:
    assert chosen_coding(accepted) == expected


BOMB = gzip.compress(bytes(200_000_000), 9)
GOOD = gzip.compress(json.dumps(document(BYTES)).encode())


@pytest.mark.parametrize(
    ("body", "coding", "status", "text"),
    [
        (BOMB, "gzip", 413, "got more, decompressed"),
        (GOOD[:-9], "gzip", 400, "expected a body in gzip, got only its start"),
        (b"", "gzip", 400, "expected a body in gzip, got only its start"),
        (GOOD + b"more", "gzip", 400, "expected a body in gzip, got 4 more bytes"),
        (GOOD, "deflate", 400, "expected a body in deflate: "),
        (GOOD, "br", 400, "expected a Content-Encoding of gzip or deflate, got 'br'"),
        (GOOD, "gzip, gzip", 400, "expected a Content-Encoding of gzip or deflate"),
    ],
)
def test_a_body_that_does_not_unpack_is_refused(
    served: RunningServer, body: bytes, coding: str, status: int, text: str
) -> None:
    answer = infer(served.http_address, body, content_encoding=coding)
    assert (answer.status, text in answer.json()["error"]) == (status, True), answer.body


@pytest.mark.parametrize("sent", ["-1", "1_0", "1e3", "9" * 30, "x", "99999999"])
def test_a_wrong_length_of_the_json_is_refused(served: RunningServer, sent: str) -> None:
    answer = infer(served.http_address, document(BYTES), **{LENGTH: sent})
    assert answer.status == 400
    assert "Inference-Header-Content-Length: expected a whole number" in answer.json()["error"]


@pytest.mark.parametrize("sent", ["text/plain", "multipart/form-data", "", "application/xml"])
def test_another_content_type_is_refused_by_name(served: RunningServer, sent: str) -> None:
    answer = infer(served.http_address, document(BYTES), content_type=sent)
    assert answer.status == 415
    assert "expected Content-Type application/json" in answer.json()["error"]


def test_a_form_is_json_of_curl_but_not_of_a_page(served: RunningServer) -> None:
    form = {"content_type": "application/x-www-form-urlencoded"}
    assert infer(served.http_address, document(BYTES), **form).status == 200
    page = infer(served.http_address, document(BYTES), **form, origin="http://example.com")
    assert page.status == 415


def test_methods_that_a_path_does_not_take_are_named(served: RunningServer) -> None:
    for path, allowed in ((PATH, {"POST"}), ("/v2/models/mnist", {"GET", "HEAD"})):
        for method in {"GET", "POST", "PUT", "DELETE"} - allowed:
            answer = request(served.http_address, path, method=method)
            assert answer.status == 405
            assert set(answer.headers["allow"].split(", ")) == allowed
            assert "error" in answer.json()


def test_head_has_the_headers_of_get(served: RunningServer) -> None:
    for path in ("/v2", "/v2/health/ready", "/v2/models/mnist", "/v2/openapi.json"):
        head = request(served.http_address, path, method="HEAD")
        get = request(served.http_address, path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]


def test_text_counts_as_long_as_it_is(served: RunningServer) -> None:
    many = np.zeros((400, 28, 28), np.uint8)
    binary = infer(served.http_address, document(many, "flatten", parameters=BINARY))
    assert binary.status == 200
    text = infer(served.http_address, document(many, "flatten"))
    assert text.status == 400
    assert "outputs: the response needs up to" in text.json()["error"]
    fitting = infer(served.http_address, document(many[:200], "flatten"))
    assert fitting.status == 200
    assert len(fitting.body) < 4 * 2**20


def test_what_a_client_sends_is_escaped(served: RunningServer) -> None:
    answer = request(served.http_address, "/v2/models/%3Cscript%3E%0d%0aa:%20b/ready")
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert "'<script>\\r\\na: b'" in answer.json()["error"]
    assert "a" not in answer.headers


def test_a_draining_server_is_live_but_not_ready(bundle: Bundle) -> None:
    body = document(BYTES)
    with start_held_server(bundle) as held, ThreadPoolExecutor() as pool:
        address = held.http_address
        assert request(address, "/v2/health/ready").json() == {"ready": True}
        running = pool.submit(infer, address, body)
        assert held.runner.started.acquire(timeout=30)
        draining = held.drain(30)
        wait_until(lambda: request(held.http_address, "/v2/health/ready").status == 503)
        held.runner.let_go.set()
        assert values_of(running.result(60))["logits"].shape == (2, 10)
        draining.result(60)


def test_a_full_queue_says_when_to_come_again(bundle: Bundle) -> None:
    with start_held_server(bundle, max_queue_images=4) as held:
        answer = infer(held.http_address, document(np.zeros((5, 28, 28), np.uint8)))
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "the queue holds 0 of at most 4 images" in answer.json()["error"]


def test_an_unexpected_failure_tells_no_cause(bundle: Bundle) -> None:
    with start_held_server(bundle) as held:
        answer = infer(held.http_address, document(BYTES, "relu"))
    assert answer.status == 500
    assert "secret" not in answer.body.decode()
    assert "the server's log has the cause under request" in answer.json()["error"]


def test_requests_are_counted_by_route(served: RunningServer) -> None:
    labels = {"http_route": "/v2/models/{model}/infer", "http_code": "200"}

    def counts() -> tuple[float, float]:
        return (
            metric(served, "forward_http_requests_total", **labels),
            metric(served, "forward_images_total", batcher="predict"),
        )

    infer(served.http_address, document(BYTES))
    before = counts()
    infer(served.http_address, document(BYTES))
    request(served.http_address, "/v2/models/other")
    assert np.subtract(counts(), before).tolist() == [1, 2]
    routes = {dict(each).get("http_route", "") for _, each in scrape(served)}
    assert not [route for route in routes if "models/other" in route]
    assert "/v2/models/{model}/versions/{version}/config" in routes


def test_a_token_is_needed_but_for_the_document(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text("right-token-0123456789")
    with start_server("--http-port", "0", "--token-file", str(tokens)) as guarded:
        address = guarded.http_address
        for path in ("/v2", "/v2/health/live", "/v2/models/mnist", "/v2/models/mnist/ready"):
            assert request(address, path).status == 401
        refused = infer(address, document(BYTES))
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        right = {"authorization": "Bearer right-token-0123456789"}
        assert infer(address, document(BYTES), **right).status == 200
        assert request(address, "/v2/openapi.json").status == 200
