"""A client of every protocol, with TLS and a token, that counts what the server's metrics should.

A refusal by a server that is gone, or that closes its connection, is not the server's to count: of
UNAVAILABLE only those count that the server itself worded.
"""

import base64
import json
import random
import shutil
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from forward.v1 import forward_pb2 as pb
from forward_client.messages import tensor_of
from inference import open_inference_pb2 as oip
from tests.support.bundles import MODELS_DIR, random_images
from tests.support.certificates import Authority
from tests.support.servers import RunningServer

TOKEN = "a-token-of-the-tests"  # noqa: S105 (no secret)
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
FORWARD, TRITON = "forward.v1.ForwardService", "inference.GRPCInferenceService"
CALL_SECONDS = 60
REFUSED = "the server is shutting down"  # the server's own words
BATCH = 64  # images of the largest request, and what fits into the queue
PICTURE = base64.b64encode(bytes(784)).decode()


def server_options(folder: Path, authority: Authority) -> tuple[str, ...]:
    """Return the options of a server for such a client, with files in a folder.

    TLS, tokens, HTTP, a queue that is soon full, and a model repository of its own.
    """
    tokens = folder / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    shutil.copytree(MODELS_DIR / "mnist" / "1", folder / "models" / "mnist" / "1")
    return (
        *("--http-port", "0", "--token-file", str(tokens), *authority.issue().arguments()),
        *("--models-dir", str(folder / "models"), "--reload-interval", "0.2"),
        *("--max-batch-images", str(BATCH), "--max-queue-images", str(BATCH)),
    )


@dataclass(frozen=True)
class GrpcCall:
    """A call over gRPC: a good one or a bad one, with the messages of its requests."""

    service: str
    method: str
    messages: Sequence[bytes]
    metadata: Mapping[str, str] = field(default_factory=lambda: AUTHORIZED)
    is_stream: bool = False


@dataclass(frozen=True)
class HttpRequest:
    """A request over HTTP, and the route that the server counts it by."""

    route: str
    path: str
    body: object = None  # in JSON; None: it is a GET
    headers: Mapping[str, str] = field(default_factory=lambda: AUTHORIZED)


def grpc_calls() -> list[GrpcCall]:
    """Return calls of every kind of end."""
    one, many = random_images(1, (28, 28)), random_images(BATCH, (28, 28))
    good = pb.PredictRequest(images=tensor_of(one))
    unknown = pb.PredictRequest(images=tensor_of(one), model=pb.ModelSelector(version=99))
    wide = pb.PredictRequest(images=tensor_of(one[:, 1:]))
    trace = pb.TraceRequest(images=tensor_of(one))
    stream = pb.PredictStreamRequest(images=tensor_of(one))
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="images", datatype="FP32", shape=[1, 28, 28]
    )
    infer = oip.ModelInferRequest(
        model_name="mnist", inputs=[tensor], raw_input_contents=[one.tobytes()]
    )
    ready = oip.ModelReadyRequest(name="mnist")
    forward = [
        ("Predict", good),
        ("Predict", pb.PredictRequest(images=tensor_of(many))),
        ("Predict", unknown),
        ("Predict", wide),
        ("Trace", trace),
        ("Trace", pb.TraceRequest(images=tensor_of(one[:, 1:]))),
        ("GetModel", pb.GetModelRequest()),
        ("GetModel", pb.GetModelRequest(model=pb.ModelSelector(name="none"))),
    ]
    others = [
        ("ModelInfer", infer),
        ("ModelInfer", oip.ModelInferRequest(model_name="none")),
        ("ModelReady", ready),
        ("ServerLive", oip.ServerLiveRequest()),
    ]
    streamed = [stream.SerializeToString()] * 3
    return [
        *(GrpcCall(FORWARD, method, [each.SerializeToString()]) for method, each in forward),
        *(GrpcCall(TRITON, method, [each.SerializeToString()]) for method, each in others),
        GrpcCall(FORWARD, "Predict", [b"\xff\xff no message"]),
        GrpcCall(FORWARD, "Predict", [good.SerializeToString()], {}),
        GrpcCall(FORWARD, "Trace", [trace.SerializeToString()], {"authorization": "Bearer none"}),
        GrpcCall(FORWARD, "PredictStream", streamed, is_stream=True),
    ]


UNKNOWN = GrpcCall(FORWARD, "Unknown", [b""])
COMPARE = GrpcCall(
    FORWARD,
    "Compare",
    [pb.CompareRequest(images=tensor_of(random_images(1, (28, 28)))).SerializeToString()],
)  # its runs have threads of their own


def http_requests() -> list[HttpRequest]:
    """Return requests over Connect and REST, of every kind of end."""
    predict, infer = f"/{FORWARD}/Predict", "/v2/models/{model}/infer"
    images = {"dtype": "DATA_TYPE_UINT8", "shape": [28, 28], "data": PICTURE}
    pixels = np.zeros(784).tolist()
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 28, 28], "data": pixels}
    return [
        HttpRequest(predict, predict, {"images": images}),
        HttpRequest(predict, predict, {"images": {"shape": [784]}}),
        HttpRequest(predict, predict, {"images": images}, {}),
        HttpRequest(predict, predict),  # GET
        HttpRequest(f"/{FORWARD}/Trace", f"/{FORWARD}/Trace", {"images": images}),
        HttpRequest(f"/{FORWARD}/GetModel", f"/{FORWARD}/GetModel", {}),
        HttpRequest("/", f"/{FORWARD}/Unknown", {}),
        HttpRequest(infer, "/v2/models/mnist/infer", {"inputs": [tensor]}),
        HttpRequest(infer, "/v2/models/mnist/infer", {"inputs": []}),
        HttpRequest(infer, "/v2/models/none/infer", {"inputs": [tensor]}),
        HttpRequest("/v2/models/{model}", "/v2/models/mnist"),
        HttpRequest("/readyz", "/readyz"),
        HttpRequest("/", "/"),
    ]


class CountingClient:
    """Calls a server and counts how the calls ended."""

    def __init__(self, server: RunningServer, authority: Authority) -> None:
        self._authority = authority
        self._grpc = f"localhost:{server.ready['grpc_port']}"
        self._http = int(server.ready["http_port"])
        self._lock = threading.Lock()
        self.grpc: Counter[tuple[str, str, str]] = Counter()  # service, method, status
        self.http: Counter[tuple[str, str]] = Counter()  # route, status
        self.uncounted: Counter[str] = Counter()  # that no server has worded

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """Open a connection."""
        credentials = grpc.ssl_channel_credentials(self._authority.ca.read_bytes())
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(self._grpc, credentials, options) as channel:
            yield channel

    @contextmanager
    def connection(self) -> Iterator[HTTPSConnection]:
        """Open a connection of HTTP."""
        context = ssl.create_default_context(cafile=str(self._authority.ca))
        connection = HTTPSConnection("localhost", self._http, timeout=CALL_SECONDS, context=context)
        try:
            yield connection
        finally:
            connection.close()

    def call(
        self, channel: grpc.Channel, call: GrpcCall, labels: tuple[str, str] = ("", "")
    ) -> str:
        """Make a call; count it by its service and method, or by others; return its status."""
        path, metadata = f"/{call.service}/{call.method}", tuple(call.metadata.items())
        multi: Any = channel.stream_stream(path) if call.is_stream else channel.unary_unary(path)
        try:
            if call.is_stream:
                list(multi(iter(call.messages), timeout=CALL_SECONDS, metadata=metadata))
            else:
                multi(call.messages[0], timeout=CALL_SECONDS, metadata=metadata)
            status, text = "OK", ""
        except grpc.RpcError as error:
            status, text = error.code().name, str(error.details())
        service, method = labels if any(labels) else (call.service, call.method)
        with self._lock:
            if status == "UNAVAILABLE" and REFUSED not in text:
                self.uncounted[text] += 1
            else:
                self.grpc[service, method, status] += 1
        return status

    def request(self, connection: HTTPSConnection, request: HttpRequest) -> int:
        """Make a request; count it by its route; return its status."""
        headers = dict(request.headers)
        body = None
        if request.body is not None:
            headers["content-type"] = "application/json"
            body = json.dumps(request.body)
        connection.request("GET" if body is None else "POST", request.path, body, headers)
        response = connection.getresponse()
        response.read()
        with self._lock:
            self.http[request.route, str(response.status)] += 1
        return response.status

    def load(self, threads: int, calls: int) -> None:
        """Make so many calls in each of so many threads of each protocol, mixed, good and bad."""
        with ThreadPoolExecutor(2 * threads) as pool:
            done = [
                pool.submit(work, calls, seed)
                for seed in range(threads)
                for work in (self._load_grpc, self._load_http)
            ]
            for each in done:
                each.result()

    def _load_grpc(self, calls: int, seed: int) -> None:
        choices = grpc_calls()
        with self.channel() as channel:
            for call in random.Random(seed).choices(choices, k=calls):  # noqa: S311 (no secret)
                self.call(channel, call)

    def _load_http(self, calls: int, seed: int) -> None:
        choices = http_requests()
        with self.connection() as connection:
            for request in random.Random(seed).choices(choices, k=calls):  # noqa: S311 (no secret)
                self.request(connection, request)
