"""Three nodes of Ray on this machine answer as the server does, also while replicas change."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

from bench.load.retrying import Callers, Outcomes
from bench.servers.ray import (
    MARK,
    RayCluster,
    RayServer,
    marked_processes,
    ray_cluster,
    ray_server,
)
from export.bundle import open_bundle
from export.bundle.publishing import write_bundle
from tests.conformance.test_tritonclient import ARRAYS, BAD, GOOD
from tests.support.bundles import MODELS_DIR, REPOSITORY
from tests.support.counting import (
    AUTHORIZED,
    COMPARE,
    FORWARD,
    TOKEN,
    UNKNOWN,
    GrpcCall,
    grpc_calls,
    http_requests,
)
from tests.support.http import Answer, request
from tests.support.servers import RunningServer, start_server, wait_until
from tests.support.transports import use_transport

# The cluster starts in the first test, with twenty processes of Ray.
pytestmark = [pytest.mark.one_transport, pytest.mark.timeout(900)]

NODES, REPLICAS, CPUS = 3, 2, 2.0
CALL_SECONDS = 60
CALLERS = 8
# Of Ray's HTTP server, or of the moment.
OTHER_HEADERS = {
    *("date", "server", "x-request-id", "connection", "keep-alive", "transfer-encoding"),
    *("content-length", "last-modified"),
}
UPDATE_CLIENT = (sys.executable, "-m", "forward_client")
TIMES = ("queue_seconds", "run_seconds", "reload")  # of the moment
REQUEST_ID = re.compile(rb"[0-9a-f]{32}")
LARGE = bytes(8_000_000)  # above what a request may have


@dataclass(frozen=True)
class Deployed:
    """An application on a cluster, and a server with the same settings beside it."""

    cluster: RayCluster
    ray: RayServer
    server: RunningServer
    options: Sequence[str]
    log: Path

    def update(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Deploy other settings to the running application."""
        ports = (self.ray.ready["grpc_port"], self.ray.ready["http_port"])
        named = ("--grpc-port", str(ports[0]), "--http-port", str(ports[1]))
        return self.cluster.run(*self.options, *named, "--ray-detach", *arguments)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model repository with two versions that compute the same."""
    folder = tmp_path_factory.mktemp("models")
    bundle = open_bundle(shutil.copytree(MODELS_DIR / "mnist" / "1", folder / "mnist" / "1"))
    second = folder / "mnist" / "2"
    second.mkdir()
    files = {file.name: bundle.read(file.name) for file in bundle.manifest.files}
    write_bundle(second, bundle.manifest.model_copy(update={"version": 2}), files)
    return folder


@pytest.fixture(scope="module")
def deployed(models: Path) -> Iterator[Deployed]:
    """Run the application on three nodes, with replicas on two of them."""
    common = ("--models-dir", str(models))
    options = (*common, "--ray-min-replicas", str(REPLICAS), "--ray-discovery-port", "0")
    first = ("--model-version", "1")
    with (
        use_transport("python"),  # as replicas have it
        start_server(*common, *first, "--http-port", "0") as server,
        ray_cluster(NODES, CPUS) as cluster,
        ray_server(cluster.environment, cluster.address, (*options, *first)) as ray,
    ):
        # Each node has a proxy of its own; on one machine they share the port.
        wait_until(lambda: all(is_serving(ray.address) for _ in range(4 * NODES)), 60)
        yield Deployed(cluster, ray, server, options, ray.log_path)
    assert marked_processes(cluster.environment[MARK]) == []


def is_serving(address: str) -> bool:
    """Tell if the proxy that takes a new connection can reach replicas."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass(frozen=True)
class End:
    """How a call ended, without what no two calls have in common."""

    responses: Sequence[bytes]
    status: str = "OK"
    text: str = ""
    details: Sequence[tuple[str, bytes]] = ()
    trailing: frozenset[str] = frozenset()


def end_of(address: str, call: GrpcCall) -> End:
    """Make a call; return how it ended."""
    path, metadata = f"/{call.service}/{call.method}", tuple(call.metadata.items())
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        multi: Any = channel.stream_stream(path) if call.is_stream else channel.unary_unary(path)
        sent = iter(call.messages) if call.is_stream else call.messages[0]
        responses: list[bytes] = []
        try:
            if call.is_stream:
                responses.extend(multi(sent, timeout=CALL_SECONDS, metadata=metadata))
            else:
                responses.append(multi(sent, timeout=CALL_SECONDS, metadata=metadata))
        except grpc.RpcError as error:
            call_error: Any = error  # it is a call, too
            rich = rpc_status.from_call(call_error)
            details = [
                (each.type_url, each.value)
                for each in (rich.details if rich else ())
                if not each.Is(error_details_pb2.RequestInfo.DESCRIPTOR)
            ]
            trailing = frozenset(key for key, _ in call_error.trailing_metadata() or ())
            status, text = error.code().name, str(error.details())
            return End(responses, status, text, details, trailing)
        return End([without_times(call, each) for each in responses])


def without_times(call: GrpcCall, response: bytes) -> bytes:
    """Return a response without what no two have in common."""
    service = descriptor_pool.Default().FindServiceByName(call.service)
    output = service.methods_by_name[call.method].output_type
    message = message_factory.GetMessageClass(output).FromString(response)
    for name in TIMES:
        if name in output.fields_by_name:
            message.ClearField(name)
    return REQUEST_ID.sub(b"", message.SerializeToString())


def json_without_times(body: bytes) -> object:
    """Return what a response in JSON holds, likewise; another one as it is."""
    try:
        found = json.loads(body)
    except ValueError:
        return body
    for name in TIMES:
        found.pop(re.sub(r"_(.)", lambda each: each[1].upper(), name), None)
    rest = [each for each in found.get("details", ()) if each["type"] != "google.rpc.RequestInfo"]
    return {**found, "details": rest}


FORWARD_CALLS = [
    *grpc_calls(),
    UNKNOWN,
    COMPARE,
    *(
        GrpcCall(FORWARD, name, messages, is_stream=name == "PredictStream")
        for name, messages in {
            "Attribute": [grpc_calls()[4].messages[0]],
            "GetTrainingHistory": [b""],
            "GetParameters": [b""],
            "PredictStream": [b"\xff", grpc_calls()[0].messages[0], b""],
        }.items()
    ),
    GrpcCall(FORWARD, "Predict", [LARGE]),
    GrpcCall(FORWARD, "PredictStream", [LARGE], is_stream=True),
]


@pytest.mark.parametrize("call", FORWARD_CALLS, ids=lambda call: f"{call.method}")
def test_a_call_ends_as_it_does_at_the_server(deployed: Deployed, call: GrpcCall) -> None:
    assert end_of(deployed.ray.address, call) == end_of(deployed.server.address, call)


@pytest.mark.parametrize("number", range(len(http_requests())))
def test_a_request_over_http_is_answered_as_by_the_server(deployed: Deployed, number: int) -> None:
    sent = http_requests()[number]
    body = None if sent.body is None else json.dumps(sent.body).encode()
    headers = dict(sent.headers) | ({"content_type": "application/json"} if body else {})

    def answer(address: str) -> Answer:
        return request(address, sent.path, body, **headers)

    expected, found = answer(deployed.server.http_address), answer(deployed.ray.http_address)
    assert found.status == expected.status
    assert json_without_times(found.body) == json_without_times(expected.body)
    assert named(found) == named(expected)


def named(answer: Answer) -> dict[str, str]:
    """Return the headers of a response that are the server's own."""
    return {name: value for name, value in answer.headers.items() if name not in OTHER_HEADERS}


def test_a_response_over_http_has_one_request_id(deployed: Deployed) -> None:
    with urllib.request.urlopen(f"http://{deployed.ray.http_address}/", timeout=30) as response:
        assert len(response.headers.get_all("x-request-id")) == 1


def test_a_deadline_arrives_and_a_request_id_returns(deployed: Deployed) -> None:
    with grpc.insecure_channel(deployed.ray.address) as channel:
        predict: Any = channel.unary_unary(f"/{FORWARD}/Predict")
        message = grpc_calls()[0].messages[0]
        metadata = (*AUTHORIZED.items(), ("x-request-id", "mine"))
        _, call = predict.with_call(message, timeout=30, metadata=metadata)
        assert ("x-request-id", "mine") in call.trailing_metadata()
        with pytest.raises(grpc.RpcError) as late:
            predict(message, timeout=0.001, metadata=metadata)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_health_is_that_of_the_server(deployed: Deployed) -> None:
    def health(address: str, service: str) -> Any:  # noqa: ANN401 (a status, or an error)
        with grpc.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                asked = health_pb2.HealthCheckRequest(service=service)
                metadata = tuple(AUTHORIZED.items())
                first = next(stub.Watch(asked, timeout=CALL_SECONDS, metadata=metadata))
                assert first.status in {1, 3}
                return stub.Check(asked, timeout=CALL_SECONDS, metadata=metadata).status
            except grpc.RpcError as error:
                return error.code(), error.details()

    for service in ("", FORWARD, "inference.GRPCInferenceService", "none"):
        expected = health(deployed.server.address, service)
        assert health(deployed.ray.address, service) == expected


def test_reflection_names_the_services(deployed: Deployed) -> None:
    class Authorized(grpc.StreamStreamClientInterceptor):
        def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:  # noqa: ANN401 (grpcio's)
            class Details(grpc.ClientCallDetails):
                method, timeout, credentials = details.method, 30, None
                wait_for_ready, compression = None, None
                metadata = tuple(AUTHORIZED.items())

            return continuation(Details(), requests)

    def services(address: str) -> list[str]:
        with grpc.insecure_channel(address) as channel:
            authorized = grpc.intercept_channel(channel, Authorized())
            return sorted(ProtoReflectionDescriptorDatabase(authorized).get_services())

    assert services(deployed.ray.address) == services(deployed.server.address)


def test_the_client_is_served_unchanged(deployed: Deployed, tmp_path: Path) -> None:
    image = MODELS_DIR.parent / "docs" / "digit.png"
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)

    def output(address: str, *command: str) -> str:
        done = subprocess.run(
            [*UPDATE_CLIENT, *command, "--address", address, "--token-file", str(token)],
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=True,
        )
        return done.stdout.replace(address, "ADDRESS")

    for command in (("predict", str(image)), ("health",)):
        expected = output(deployed.server.address, *command)
        assert output(deployed.ray.address, *command) == expected


def targets(deployed: Deployed) -> dict[str, str]:
    """Return where the metrics of each replica are, as Prometheus is told."""
    with urllib.request.urlopen(deployed.ray.ready["discovery"], timeout=30) as response:  # noqa: S310 (ours)
        groups = json.load(response)
    return {group["labels"]["replica"]: group["targets"][0] for group in groups}


def scraped(deployed: Deployed) -> tuple[Counter[tuple[str, str, str]], set[str], set[str]]:
    """Return the calls by service, method and status; the names of all metrics; the replicas."""
    calls: Counter[tuple[str, str, str]] = Counter()
    names: set[str] = set()
    replicas: set[str] = set()
    for replica, target in targets(deployed).items():
        replicas.add(replica)
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=30) as response:
            text = response.read().decode()
        for family in text_string_to_metric_families(text):
            names.add(family.name)
            for sample in family.samples:
                if sample.name == "grpc_server_handled_total" and sample.value:
                    labels = sample.labels
                    key = (labels["grpc_service"], labels["grpc_method"], labels["grpc_code"])
                    calls[key] += int(sample.value)
    return calls, names, replicas


def test_the_metrics_of_all_replicas_are_what_clients_counted(deployed: Deployed) -> None:
    before, names, replicas = scraped(deployed)
    assert len(replicas) == REPLICAS
    counted: Counter[tuple[str, str, str]] = Counter()
    for call in 3 * grpc_calls():
        counted[call.service, call.method, end_of(deployed.ray.address, call).status] += 1
    after, _, _ = scraped(deployed)
    assert after - before == counted
    with urllib.request.urlopen(deployed.server.metrics_url, timeout=30) as response:  # noqa: S310 (ours)
        families = text_string_to_metric_families(response.read().decode())
        own = {family.name for family in families}
    # Of transports of its own; the log's lines are Ray's to write.
    missing = {name for name in own - names if not name.startswith("forward_connections")}
    assert missing == {"forward_log_lines_dropped"}
    assert names <= own


def triton_answers(python: str, folder: Path, addresses: dict[str, str]) -> tuple[Any, Any]:
    """Return what tritonclient got for every call of its own test."""
    folder.mkdir()
    calls = {**GOOD, **{name: bad for name, (bad, _, _) in BAD.items()}}
    (folder / "calls.json").write_text(json.dumps({"addresses": addresses, "calls": calls}))
    np.savez(folder / "arrays.npz", allow_pickle=False, **ARRAYS)
    script = REPOSITORY / "tests" / "support" / "triton_calls.py"
    subprocess.run([python, "-I", script, folder], timeout=CALL_SECONDS, check=True)
    found = json.loads((folder / "answers.json").read_text())
    return found["calls"], dict(np.load(folder / "answers.npz"))


def test_tritonclient_is_served_unchanged(
    deployed: Deployed, triton_python: str, tmp_path: Path
) -> None:
    (expected, expected_arrays), (found, arrays) = (
        triton_answers(
            triton_python, tmp_path / name, {"grpc": each.address, "http": each.http_address}
        )
        for name, each in (("server", deployed.server), ("ray", deployed.ray))
    )
    assert found == expected
    assert arrays.keys() == expected_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected_arrays[name])


def load_while(
    deployed: Deployed, change: Callable[[], Awaitable[object]], *, retries: bool
) -> Outcomes:
    """Return what callers saw before, during and after a change."""

    async def run() -> Outcomes:
        port = deployed.ray.ready["grpc_port"]
        callers = Callers(port, CALLERS, retries=retries, metadata=tuple(AUTHORIZED.items()))
        running = asyncio.create_task(callers.run())
        await asyncio.sleep(1)
        await change()
        await asyncio.sleep(1)
        callers.end()
        await running
        return callers.outcomes

    return asyncio.run(run())


def test_an_update_fails_no_call_and_moves_every_replica(
    deployed: Deployed, models: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    options = ("--model-version", "2", "--token-file", str(tokens))

    async def update() -> None:
        done = await asyncio.to_thread(deployed.update, *options)
        assert done.returncode == 0, done.stderr

    outcomes = load_while(deployed, update, retries=True)
    assert outcomes.failed == {}
    assert set(outcomes.versions) == {1, 2}
    refused = [replace(grpc_calls()[n], metadata={}) for n in (0, 4, -1)]
    common = ("--models-dir", str(models), *options)
    with use_transport("python"), start_server(*common) as server:
        for call in [*grpc_calls(), *refused]:
            assert end_of(deployed.ray.address, call) == end_of(server.address, call)


def test_a_lost_node_fails_no_call_of_clients_that_retry(deployed: Deployed) -> None:
    async def kill() -> None:
        await asyncio.to_thread(deployed.cluster.kill_node)
        await asyncio.sleep(5)

    outcomes = load_while(deployed, kill, retries=True)
    assert outcomes.failed == {}
    assert outcomes.answered > 0
    wait_until(lambda: len(targets(deployed)) == REPLICAS, 90)  # one started on another node


def test_a_signal_stops_the_application(deployed: Deployed) -> None:
    assert deployed.ray.stop() == 0
    assert '"event": "stopped"' in deployed.log.read_text()
    wait_until(lambda: replica_processes(deployed) == [])


def replica_processes(deployed: Deployed) -> list[str]:
    """Return the replicas that run."""
    names = []
    for process in marked_processes(deployed.cluster.environment[MARK]):
        with suppress(psutil.Error):
            names.append(" ".join(process.cmdline()))
    return [name for name in names if "ServeReplica" in name]
