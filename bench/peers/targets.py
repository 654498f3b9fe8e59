"""The servers that are compared, and how to call each at its cheapest."""

import http.client
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np

from bench.load.h2load import GRPC_HEADERS, Load, Shape, frame, load
from bench.load.processes import Served
from bench.peers import oip
from bench.peers.servers.common import BATCH_REQUESTS, Model
from bench.servers.forward import Transport, chosen
from forward.v1 import forward_pb2 as pb
from forward_client.arrays import array_of
from forward_client.messages import tensor_of

ENVIRONMENTS = Path(".venv-peers")
PREDICT = "/forward.v1.ForwardService/Predict"
OCTETS = "application/octet-stream"
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Target:
    """A server: how it is started, what it takes and what it answers."""

    name: str
    command: tuple[str, ...]
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]
    path: str = "/predict"
    grpc: bool = False
    uint8: bool = False
    environment: str | None = None  # a folder of ENVIRONMENTS; none: this Python's
    note: str = ""

    @property
    def python(self) -> str:
        """Return the interpreter that runs it."""
        if self.environment is None:
            return sys.executable
        return str(ENVIRONMENTS.absolute() / self.environment / "bin" / "python")

    def ask(self, served: Served, images: np.ndarray) -> np.ndarray:
        """Return the logits that the server gives a real client."""
        return self.decode(self.answer(served, images))

    def answer(self, served: Served, images: np.ndarray) -> bytes:
        """Return the body of the server's answer to a real client."""
        body = self.encode(images)
        if self.grpc:
            with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
                method: Any = channel.unary_unary(self.path)
                return method(body, timeout=10)
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        try:
            connection.request("POST", self.path, body, {"content-type": OCTETS})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{self.name} answered {answer.status}: {data[:200]!r}")
        return data

    def load(self, served: Served, images: np.ndarray, callers: int, seconds: float) -> Load:
        """Load the server: over HTTP/2 for gRPC, else over a connection for each caller."""
        body, url = self.encode(images), served.url(self.path)
        if self.grpc:
            shape = Shape(callers, connections=min(callers, 8))
            return load(url, frame(body), shape, seconds=seconds, headers=GRPC_HEADERS)
        shape = Shape(callers, connections=callers)
        headers = (f"content-type: {OCTETS}",)
        return load(url, body, shape, seconds=seconds, headers=headers, options=("--h1",))


def pixels(target: Target, count: int, seed: int = 0) -> np.ndarray:
    """Return images as the target takes them, [N, 28, 28]."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)
    return images if target.uint8 else images / np.float32(255)


def check(target: Target, served: Served) -> None:
    """Compare answers, asked for at the same time so that they share batches, with in-process ones.

    Raises:
        RuntimeError: an answer is wrong.
    """
    model = Model()

    def ask(seed: int) -> None:
        images = pixels(target, 64 if seed % 4 == 0 else 1, seed)
        expected = model(images / np.float32(255) if target.uint8 else images)
        answer = target.ask(served, images)
        if answer.shape != expected.shape or not np.allclose(
            answer, expected, rtol=0, atol=TOLERANCE
        ):
            raise RuntimeError(f"{target.name} answered wrong logits")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(32)))


def _forward_request(images: np.ndarray) -> bytes:
    return pb.PredictRequest(images=tensor_of(images)).SerializeToString()


def _forward_logits(response: bytes) -> np.ndarray:
    return array_of(pb.PredictResponse.FromString(response).logits)


def _raw(images: np.ndarray) -> bytes:
    return images.tobytes()


def _raw_logits(body: bytes) -> np.ndarray:
    return np.frombuffer(body, np.float32).reshape(-1, 10)


def _forward(transport: Transport, dtype: Literal["float32", "uint8"]) -> Target:
    flags = "--grpc-port 0 --http-port off --metrics-port 0 --log-format json --device cpu"
    return Target(
        f"Forward, {transport}, {dtype}",
        ("server", *flags.split(), "--transport", transport),
        _forward_request,
        _forward_logits,
        path=PREDICT,
        grpc=True,
        uint8=dtype == "uint8",
    )


def forwards() -> tuple[Target, ...]:
    """Return Forward with each transport that is installed; the first is what others are set to."""
    return tuple(
        _forward(transport, dtype)
        for transport in reversed(chosen("both"))
        for dtype in ("float32", "uint8")
    )


def _oip(
    name: str, module: str, encode: Callable[[np.ndarray], bytes] = oip.request, note: str = ""
) -> Target:
    return Target(
        name,
        (f"bench.peers.servers.{module}",),
        encode,
        oip.logits,
        path=oip.MODEL_INFER,
        grpc=True,
        environment=module,
        note=note,
    )


def _http(name: str, module: str, *arguments: str, note: str = "") -> Target:
    command = (f"bench.peers.servers.{module}", *arguments)
    return Target(name, command, _raw, _raw_logits, environment=module, note=note)


MLSERVER_NOTE = (
    "FP32 tensors in `raw_input_contents`, as Open Inference clients send them; MLServer unpacks "
    "them into a list of Python numbers. Batches of up to 64 requests, gathered for 1 ms; no "
    "worker process, metrics or access log."
)
MLSERVER_BYTES_NOTE = "the same server; each image is an element of type BYTES, which stays bytes."
PYTRITON_NOTE = (
    "FP32 tensors in `raw_input_contents`, Triton's dynamic batcher without a delay (one of 1 ms "
    "takes as much CPU and delays a single caller), no metrics."
)
BENTOML_NOTE = (
    "raw bodies, the model in the event loop, no metrics or access log. No batching: its batches "
    "are of arrays, and its HTTP server reads arrays from JSON alone."
)
LITSERVE_NOTE = (
    "raw bodies, one API process and one worker, its faster queue (ZeroMQ), batches of up to 64 "
    "requests gathered for 1 ms. It polls for answers, which costs CPU without requests too."
)
MOSEC_NOTE = "raw bodies, one worker, batches of up to 64 requests gathered for 1 ms."

FORWARD = forwards()
PEERS = (
    _oip("MLServer", "mlserver", note=MLSERVER_NOTE),
    _oip("MLServer, BYTES", "mlserver", encode=oip.bytes_request, note=MLSERVER_BYTES_NOTE),
    _oip("PyTriton", "pytriton", note=PYTRITON_NOTE),
    _http("BentoML", "bentoml", note=BENTOML_NOTE),
    _http("LitServe", "litserve", note=LITSERVE_NOTE),
    _http("Mosec, batching", "mosec", str(BATCH_REQUESTS), note=MOSEC_NOTE),
    _http("Mosec, no batching", "mosec", "1"),
)
