"""What must come of an input, found without the server's own code."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from export.runtimes import Runner
from forward.v1 import forward_pb2 as pb

SHAPE, MOST_IMAGES = (28, 28), 1024
DTYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}


@dataclass(frozen=True)
class Judgement:
    """The status that must come and, for OK, the logits."""

    status: str
    logits: np.ndarray | None = None


INVALID = Judgement("INVALID_ARGUMENT")


class PredictJudge:
    """Judges what Predict, or a message of PredictStream, must answer."""

    def __init__(self, runner: Runner, name: str, version: int) -> None:
        self._runner = runner
        self._name = name
        self._version = version

    def judge(self, data: bytes) -> Judgement:
        """Return what must come of the bytes of a request."""
        try:
            request = pb.PredictRequest.FromString(data)
        except DecodeError:
            return INVALID
        model = request.model
        if model.name not in ("", self._name) or model.version not in (0, self._version):
            return Judgement("NOT_FOUND")
        pixels = _pixels(request.images)
        return INVALID if pixels is None else Judgement("OK", self._runner.predict(pixels))


def _pixels(tensor: pb.Tensor) -> np.ndarray | None:
    """Return the images [N, 28, 28] in 0..1, or None."""
    shape, dtype = tuple(tensor.shape), DTYPES.get(tensor.dtype)
    if shape == SHAPE:
        shape = (1, *SHAPE)
    if dtype is None or shape[1:] != SHAPE or not 1 <= shape[0] <= MOST_IMAGES:
        return None
    if len(tensor.data) != prod(shape) * dtype.itemsize:
        return None
    values = np.frombuffer(tensor.data, dtype).reshape(shape)
    if dtype == np.uint8:
        return values / np.float32(255)
    is_in_range = np.isfinite(values) & (values >= 0) & (values <= 1)
    return values if is_in_range.all() else None
