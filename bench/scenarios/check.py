"""The answers are right: what a server under measurement says, beside ONNX Runtime in process."""

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from bench.load.requests import HALF_OFF, RELU_UNITS, Request
from bench.scenarios.cases import BOTH, BOTH_TRACED
from export.runtimes import InterveningRunner
from export.runtimes.changes import StageChanges
from forward.v1 import forward_pb2 as pb
from forward_client.arrays import array_of
from inference import open_inference_pb2 as oip

TIMEOUT_SECONDS = 20
EXACT = (*BOTH, *BOTH_TRACED)
UNLIMITED = [("grpc.max_receive_message_length", -1)]


class WrongAnswerError(Exception):
    """A server under measurement does not do its work; its figures would mean nothing."""


def check(server: str, port: int, request: Request, runner: InterveningRunner) -> int:
    """Call a server with grpcio's own client; return the bytes of its answer.

    Raises:
        WrongAnswerError: the answer differs from what ONNX Runtime computes in process.
    """
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED) as channel:
        try:
            answers = _answers(channel, request)
        except grpc.RpcError as error:
            raise WrongAnswerError(f"{server}: {request.title}: {error}") from None
    for answer in answers:
        _check(server, request, answer, runner)
    return len(answers[0])


def _answers(channel: grpc.Channel, request: Request) -> list[bytes]:
    path, message = request.path, request.message()
    if request.method == "PredictStream":
        stream: Any = channel.stream_stream(path)
        answers = list(stream(iter([message] * 100), timeout=TIMEOUT_SECONDS))
        if len(answers) != 100:
            raise WrongAnswerError(f"PredictStream: {len(answers)} answers to 100 messages")
        return answers
    call: Any = channel.unary_unary(path)
    return [call(message, timeout=TIMEOUT_SECONDS)]


def _check(server: str, request: Request, answer: bytes, runner: InterveningRunner) -> None:
    images = request.array()
    pixels = images / np.float32(255) if images.dtype == np.uint8 else images
    expected = _logits(request, runner, pixels)
    response: Any
    if request.method == "ModelInfer":
        _check_inferred(server, request, oip.ModelInferResponse.FromString(answer), expected)
        return
    if request.method == "Attribute":
        _check_attributed(request, pb.AttributeResponse.FromString(answer), expected)
        return
    if request.method == "Trace":
        response = pb.TraceResponse.FromString(answer)
        _check_stages(request, response, runner, pixels)
    elif request.method == "PredictStream":
        response = pb.PredictStreamResponse.FromString(answer)
    else:
        response = pb.PredictResponse.FromString(answer)
    _check_logits(server, request, array_of(response.logits), expected)


def _logits(request: Request, runner: InterveningRunner, pixels: np.ndarray) -> np.ndarray:
    if not request.intervenes:
        return runner.predict(pixels)
    return _stages(request, runner, pixels, ["output"])["output"]


def _stages(
    request: Request, runner: InterveningRunner, pixels: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    if not request.intervenes:
        return runner.trace(pixels, names)
    at = (np.arange(len(pixels))[:, None] * RELU_UNITS + np.array(HALF_OFF.units)).ravel()
    off = np.zeros(len(at), np.float32)
    return runner.intervene(pixels, names, {"relu": StageChanges(at, at, off + 1, off, off, off)})


def _check_inferred(
    server: str, request: Request, response: oip.ModelInferResponse, expected: np.ndarray
) -> None:
    (output,), (data,) = response.outputs, response.raw_output_contents
    _check_logits(server, request, np.frombuffer(data, "<f4").reshape(output.shape), expected)


def _check_attributed(request: Request, response: pb.AttributeResponse, logits: np.ndarray) -> None:
    """The contributions must add up to the largest logit, within the bound that came with them."""
    sums = array_of(response.contributions).sum(axis=(1, 2), dtype=np.float64)
    for found, total, score in zip(response.attributions, sums, logits.max(axis=1), strict=True):
        is_complete = abs(score - found.bias - total) <= found.residual_bound < 1
        if found.score != score or not is_complete:
            raise WrongAnswerError(f"{request.title}: the contributions are wrong")


def _check_logits(server: str, request: Request, logits: np.ndarray, expected: np.ndarray) -> None:
    equal = np.array_equal if server in EXACT else np.allclose
    if logits.shape != expected.shape or not equal(logits, expected):
        raise WrongAnswerError(f"{server}: {request.title}: the logits are wrong")


def _check_stages(
    request: Request, response: pb.TraceResponse, runner: InterveningRunner, pixels: np.ndarray
) -> None:
    expected = _stages(request, runner, pixels, [stage.name for stage in response.stages])
    if len(expected) != 6:
        raise WrongAnswerError(f"{request.title}: {len(expected)} stages")
    for stage in response.stages:
        values = expected[stage.name]
        is_right = np.isclose(stage.statistics.max, values.max()) and np.isclose(
            stage.statistics.mean, values.mean(dtype=np.float64), atol=1e-6
        )
        if request.detail == "full":
            is_right = is_right and np.array_equal(array_of(stage.values), values)
        if not is_right:
            raise WrongAnswerError(f"{request.title}: stage {stage.name} is wrong")
