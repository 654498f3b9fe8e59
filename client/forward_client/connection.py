"""The library client."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc
import numpy as np

from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc
from forward_client.address import parse_address
from forward_client.attributions import Attribution
from forward_client.channel import Tls, authorization, open_channel
from forward_client.comparisons import Comparison
from forward_client.errors import ForwardError
from forward_client.health import health_check, health_request, status_name
from forward_client.interventions import Intervention
from forward_client.messages import (
    Detail,
    Method,
    attribute_request,
    compare_request,
    parameters_request,
    tensor_of,
    trace_request,
)
from forward_client.propagation import MetadataSource, call_metadata
from forward_client.proxy import proxy_for
from forward_client.results import Model, Prediction, Trace
from forward_client.training import Parameters, TrainingHistory

Response = TypeVar("Response")

MAX_TIMEOUT_SECONDS = 86_400  # a day


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
        metadata: MetadataSource | None = None,
    ) -> None:
        """Prepare the connection; the first call opens it.

        Args:
            address: host:port, [IPv6]:port, or unix:/path of a socket; of several servers, each in
                turn, dns:///host:port or ipv4:host:port,host:port. The proxy is the environment's.
            timeout_seconds: bounds each call.
            tls: TLS settings; None for a plain connection.
            token: sent with every call, for a server that requires one. On a plain
                connection everybody on the path can read it.
            metadata: is called before each call, and returns metadata to send with it, for
                example an `x-request-id`. The current span of OpenTelemetry goes along anyway.

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
        self._metadata = call_metadata(authorization(token), metadata)
        self._channel = open_channel(self._address, tls, self._proxy, checks_health=token is None)
        self._stub = forward_pb2_grpc.ForwardServiceStub(self._channel)
        self._check = health_check(self._channel)

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

        call = self._stub.PredictStream(requests(), self._timeout, self._metadata())
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

    def trace(  # noqa: PLR0913 (the fields of the request)
        self,
        images: np.ndarray,
        stages: Sequence[str] | Mapping[str, Detail] = (),
        *,
        detail: Detail = "statistics",
        top_k: int = 0,
        interventions: Iterable[Intervention] = (),
        unchanged_logits: bool = False,
        certify: bool = False,
    ) -> Trace:
        """Return the logits of images and the activations of stages.

        Args:
            images: as for `predict`.
            stages: names of stages, or a detail for each name; all stages if empty.
            detail: detail of every stage without one of its own.
            top_k: number of values of each image for "top_k"; 0 is the server's default.
            interventions: changes of the stages' outputs; everything after is computed from them.
            unchanged_logits: whether to return the logits without the changes, too.
            certify: whether to return the stages' proven bounds and the certified decisions.

        Raises:
            TypeError: the array is neither uint8 nor floating, or `stages` is one string, or
                `interventions` are not Intervention.
            ValueError: a detail is unknown.
            ForwardError: the call failed.
        """
        request = trace_request(
            images,
            stages,
            detail=detail,
            top_k=top_k,
            interventions=interventions,
            unchanged_logits=unchanged_logits,
            certify=certify,
        )
        return Trace.of_trace(self._call(self._stub.Trace, request))

    def attribute(  # noqa: PLR0913 (the fields of the request)
        self,
        images: np.ndarray,
        *,
        method: Method = "linear_region",
        target: int | None = None,
        other: int | None = None,
        stage: str | None = None,
        baseline: np.ndarray | None = None,
    ) -> Attribution:
        """Return what each pixel, and each unit of a stage, contributes to a score.

        Args:
            images: as for `predict`.
            method: "linear_region", exact inside the active region; "integrated_gradients", exact
                along the straight path from the baseline; "saliency", the plain gradient.
            target: class whose logit is the score; None for the predicted class of each image.
            other: class whose logit is taken from that of the target; None for none.
            stage: name of a stage whose units' contributions are returned, too; None for none.
            baseline: image that "integrated_gradients" starts from, [H, W], of the type and
                values of images; None for zeros.

        Raises:
            TypeError: an array is neither uint8 nor floating.
            ValueError: the method is unknown, or a class is no whole number from 0.
            ForwardError: the call failed.
        """
        request = attribute_request(
            images, method=method, target=target, other=other, stage=stage, baseline=baseline
        )
        return Attribution.of(self._call(self._stub.Attribute, request))

    def compare(self, images: np.ndarray, runtimes: Sequence[str] = ()) -> Comparison:
        """Run images in the runtimes of the server beside the exact forward pass.

        Args:
            images: as for `predict`.
            runtimes: names of runtimes: "numpy", "onnx", "eager", "torchscript", "pt2"; all that
                the server has if empty.

        Raises:
            TypeError: the array is neither uint8 nor floating, or `runtimes` is one string.
            ForwardError: the call failed; RESOURCE_EXHAUSTED, with `retry_seconds`, while the
                server runs as many comparisons as it allows.
        """
        return Comparison.of(self._call(self._stub.Compare, compare_request(images, runtimes)))

    def training_history(self) -> TrainingHistory:
        """Return the record of the served model's training.

        Raises:
            ForwardError: the call failed; NOT_FOUND if the model was published without a record.
        """
        request = pb.GetTrainingHistoryRequest()
        return TrainingHistory.of(self._call(self._stub.GetTrainingHistory, request))

    def parameters(self, epoch: int | None = None, stages: Sequence[str] = ()) -> Parameters:
        """Return the parameters of the served model, or of an epoch of its training.

        Args:
            epoch: one of `snapshot_epochs` of `training_history`; None for the served parameters.
            stages: names of stages of operation "Linear"; all of them if empty.

        Raises:
            TypeError: `stages` is one string.
            ValueError: the epoch is no whole number from 0.
            ForwardError: the call failed; NOT_FOUND if no parameters of the epoch were kept.
        """
        return Parameters.of(
            self._call(self._stub.GetParameters, parameters_request(epoch, stages))
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
        return status_name(self._call(self._check, health_request(service)))

    def _call(self, method: Callable[..., Response], request: object) -> Response:
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata())
        except grpc.RpcError as error:
            raise self._failure(error) from error

    def _failure(self, error: grpc.RpcError) -> ForwardError:
        return ForwardError.from_call(
            error, self._address.text, self._timeout, tls=self._is_tls, proxy=self._proxy
        )
