"""Tensors of forward.v1 to arrays and back, and plain values to its messages."""

from functools import lru_cache
from typing import Any

import numpy as np

from forward.v1 import forward_pb2 as pb
from server.engine.activations import Statistics
from server.engine.images import ImageDecoder, SentTensor, TensorForm
from server.errors import Violation
from server.repository.current import ModelIdentity

NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}
FORWARD_FORM = TensorForm(
    "images.shape",
    "images.dtype",
    "images.data",
    {pb.DataType.Name(number): numpy_type for number, numpy_type in NUMPY_TYPES.items()},
)


def encode_into(tensor: pb.Tensor, array: np.ndarray) -> None:
    """Put an array of little-endian float32 into an empty tensor."""
    tensor.dtype = pb.DATA_TYPE_FLOAT32
    tensor.shape.extend(array.shape)
    tensor.data = array.tobytes()


@lru_cache(maxsize=8)
def identity_message(identity: ModelIdentity) -> pb.ModelIdentity:
    """Return the message of an identity, made once for each version; not to be changed."""
    return pb.ModelIdentity(**identity._asdict())


def put_statistics(statistics: Statistics, into: pb.Statistics) -> None:
    """Put statistics into an empty message."""
    (
        into.min,
        into.max,
        into.mean,
        into.standard_deviation,
        into.l2_norm,
        into.zero_share,
        into.nan_count,
        into.infinity_count,
    ) = statistics


def decode_images(tensor: pb.Tensor, decoder: ImageDecoder) -> np.ndarray | list[Violation]:
    """Return the images [N, H, W], a view of the request's bytes, or everything wrong with them."""
    shape, dtype, data = tuple(tensor.shape[:]), tensor.dtype, tensor.data
    images = decoder.view(shape, NUMPY_TYPES.get(dtype), data)
    if images is not None:
        return images
    return decoder.violations(SentTensor(FORWARD_FORM, shape, _dtype_name(dtype), data))


def _dtype_name(value: int) -> str:
    known = pb.DataType.DESCRIPTOR.values_by_number.get(value)
    return known.name if known else f"unknown data type {value}"
