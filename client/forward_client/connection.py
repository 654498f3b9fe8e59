"""The library client."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self, TypeVar

import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc
from forward_client.address import parse_address
from forward_client.channel import Tls, authorization, open_channel
from forward_client.errors import ForwardError
from forward_client.proxy import proxy_for
from forward_client.results import Model, Prediction, Trace, TracedStage, array_of

Detail = Literal["statistics", "full", "top_k"]
Response = TypeVar("Response")

MAX_TIMEOUT_SECONDS = 86_400  # a day

# grpc.health.v1 without a package of its messages: a request is one string of field 1, a response
# one enumerator of field 1, in bytes the same as the wrappers of a string and of an int32.
HEALTH = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")

DETAILS: dict[Detail, pb.Detail] = {
    "statistics": pb.DETAIL_STATISTICS,
    "full": pb.DETAIL_FULL,
    "top_k": pb.DETAIL_TOP_K,
}


class ForwardClient:
    """A connection to a Forward server; safe to use from several threads.

        with ForwardClient("localhost:8001") as client:
            prediction = client.predict(images)   # uint8 or float in 0..1, [N, 28, 28]
            print(prediction.classes)

    Every call ends within `timeout_seconds` and raises ForwardError if it fails, or ValueError
    once the client is closed. The client does not retry by itself.
    """

    def __init__(
        self,
        address: str = "localhost:8001",
        *,
        timeout_seconds: float = 10.0,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        """Prepare the connection; the first call opens it.

        Args:
            address: host:port of the server, [IPv6]:port, or unix:/path of a socket. Calls to
                other machines use the proxy of the usual variables, http_proxy, no_proxy and so on.
            timeout_seconds: bounds each call.
            tls: TLS settings; None for a plain connection.
            token: sent with every call, for a server that requires one. On a plain
                connection everybody on the path can read it.

        Raises:
            CredentialsError: a file of `tls` is missing or wrong, or the token is invalid.
            ValueError: the address or the timeout is invalid.
        """
        if not 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS:
            raise ValueError(
                f"expected a timeout above 0 and at most {MAX_TIMEOUT_SECONDS} seconds, "
                f"got {timeout_seconds!r}"
            )
        self._address = parse_address(address)
        # gRPC would read it itself, by rules of its own.
        self._proxy = proxy_for(self._address, os.environ)
        self._timeout = timeout_seconds
        self._is_tls = tls is not None
        self._metadata = authorization(token)
        self._channel = open_channel(self._address, tls, self._proxy)
        self._stub = forward_pb2_grpc.ForwardServiceStub(self._channel)
        self._check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check", StringValue.SerializeToString, Int32Value.FromString
        )

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; running calls end."""
        self._channel.close()

    def predict(self, images: np.ndarray) -> Prediction:
        """Return the logits of images.

        Args:
            images: [H, W] or [N, H, W], uint8 in 0..255 or floating in 0..1, sent as float32.

        Raises:
            TypeError: the array is neither uint8 nor floating, for example int32, which a list of
                whole numbers becomes; nothing is sent. Convert it: `images.astype(np.uint8)`.
            ForwardError: the call failed.
        """
        response = self._call(self._stub.Predict, pb.PredictRequest(images=tensor_of(images)))
        return Prediction.of(response)

    def predict_stream(self, batches: Iterable[np.ndarray]) -> Iterator[Prediction | ForwardError]:
        """Yield the prediction of each batch, or its error, in order, over one stream.

        For many images: it costs both sides less than a call for each. Batches
        are taken from the iterable as the server accepts them, in a thread of grpcio's.
        `timeout_seconds` bounds the whole stream.

        Args:
            batches: the images of each request, as for `predict`.

        Raises:
            TypeError: a batch is neither uint8 nor floating.
            ForwardError: the stream failed, and with it every batch that has no response yet.
        """
        failures: list[Exception] = []

        def requests() -> Iterator[pb.PredictStreamRequest]:
            try:
                for images in batches:
                    yield pb.PredictStreamRequest(images=tensor_of(images))
            except Exception as error:
                failures.append(error)  # gRPC would hide it behind a status
                raise

        call = self._stub.PredictStream(requests(), timeout=self._timeout, metadata=self._metadata)
        try:
            for response in call:
                if response.HasField("error"):
                    yield ForwardError.from_status(response.error)
                else:
                    yield Prediction.of(response)
        except grpc.RpcError as error:
            if failures:
                raise failures[0] from None
            raise self._failure(error) from error
        finally:
            call.cancel()

    def trace(
        self,
        images: np.ndarray,
        stages: Sequence[str] | Mapping[str, Detail] = (),
        *,
        detail: Detail = "statistics",
        top_k: int = 0,
    ) -> Trace:
        """Return the logits of images and the activations of stages.

        Args:
            images: as for `predict`.
            stages: names of stages, or a detail for each name; all stages if empty.
            detail: detail of every stage without one of its own.
            top_k: number of values of each image for "top_k"; 0 is the server's default.

        Raises:
            TypeError: the array is neither uint8 nor floating, or `stages` is one string.
            ValueError: a detail is unknown.
            ForwardError: the call failed.
        """
        if isinstance(stages, str):
            raise TypeError(f"expected a sequence of stages, got {stages!r}; write [{stages!r}]")
        own = stages if isinstance(stages, Mapping) else dict.fromkeys(stages, detail)
        unknown = {detail, *own.values()} - DETAILS.keys()
        if unknown:
            raise ValueError(f"expected a detail of {', '.join(DETAILS)}, got {min(unknown)!r}")
        request = pb.TraceRequest(
            images=tensor_of(images),
            stages=[pb.StageSelection(name=name, detail=DETAILS[own[name]]) for name in own],
            detail=DETAILS[detail],
            top_k_count=top_k,
        )
        response = self._call(self._stub.Trace, request)
        return Trace(
            logits=array_of(response.logits),
            model_name=response.model.name,
            model_version=response.model.version,
            runtime=response.model.runtime,
            stages=tuple(TracedStage.of(stage) for stage in response.stages),
            queue_seconds=response.queue_seconds,
            run_seconds=response.run_seconds,
        )

    def model(self) -> Model:
        """Return a description of the served model.

        Raises:
            ForwardError: the call failed.
        """
        return Model.of(self._call(self._stub.GetModel, pb.GetModelRequest()))

    def health(self, service: str = "") -> str:
        """Return "SERVING" or "NOT_SERVING".

        Args:
            service: full name of a service, for example "forward.v1.ForwardService"; empty for the
                whole server.

        Raises:
            ForwardError: the call failed; NOT_FOUND for a service that the server does not have.
        """
        status = self._call(self._check, StringValue(value=service)).value
        return HEALTH[status] if 0 <= status < len(HEALTH) else HEALTH[0]

    def _call(self, method: Callable[..., Response], request: object) -> Response:
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failure(error) from error

    def _failure(self, error: grpc.RpcError) -> ForwardError:
        return ForwardError.from_call(
            error, self._address.text, self._timeout, tls=self._is_tls, proxy=self._proxy
        )


def tensor_of(images: np.ndarray) -> pb.Tensor:
    """Return images as a tensor: uint8 as they are, floating as FLOAT32."""
    array = np.asarray(images)
    if array.dtype == np.uint8:
        dtype = pb.DATA_TYPE_UINT8
    elif np.issubdtype(array.dtype, np.floating):
        array, dtype = array.astype("<f4", copy=False), pb.DATA_TYPE_FLOAT32
    else:
        raise TypeError(f"expected uint8 (0..255) or floating (0..1) images, got {array.dtype}")
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.tobytes())
