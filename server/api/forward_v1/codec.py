"""Tensors of forward.v1 to arrays and back, and plain values to its messages."""

from functools import lru_cache
from typing import Any

import numpy as np

from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.zero_copy import ImageRequest
from server.engine.activations import Statistics
from server.engine.images import ImageDecoder, ReceivedTensor, TensorSchema
from server.errors import InvalidArgumentError, Violation, model_not_found
from server.repository.current import ActiveModel, ModelIdentity

ImagesMessage = (
    pb.PredictRequest
    | pb.PredictStreamRequest
    | pb.TraceRequest
    | pb.AttributeRequest
    | pb.CompareRequest
)
OtherMessage = pb.GetModelRequest | pb.GetTrainingHistoryRequest | pb.GetParametersRequest

NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}
TYPES_BY_NAME = {pb.DataType.Name(number): numpy_type for number, numpy_type in NUMPY_TYPES.items()}
FORWARD_SCHEMA = TensorSchema("images.shape", "images.dtype", "images.data", TYPES_BY_NAME)
BASELINE_SCHEMA = TensorSchema(
    "baseline.shape", "baseline.dtype", "baseline.data", TYPES_BY_NAME, takes_batch=False
)


def encode_into(
    tensor: pb.Tensor, array: np.ndarray, dtype: pb.DataType = pb.DATA_TYPE_FLOAT32
) -> None:
    """Put an array of little-endian values of that type into an empty tensor."""
    tensor.dtype = dtype
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


def decode_images(
    request: ImageRequest[ImagesMessage], decoder: ImageDecoder
) -> np.ndarray | list[Violation]:
    """Return the images [N, H, W], a view of the request's bytes, or everything wrong with them."""
    tensor, data = request.message.images, request.image_data
    shape, dtype = tuple(tensor.shape[:]), tensor.dtype
    images = decoder.view(shape, NUMPY_TYPES.get(dtype), data)
    if images is not None:
        return images
    if not request.message.HasField("images"):
        return [Violation("images", "required, but not set")]
    received = ReceivedTensor(FORWARD_SCHEMA, shape, _dtype_name(dtype), data)
    return decoder.violations(received)


def decode_baseline(tensor: pb.Tensor, decoder: ImageDecoder) -> np.ndarray | list[Violation]:
    """Return an image [H, W], a view of the message's bytes, or everything wrong with it."""
    shape, data = tuple(tensor.shape[:]), tensor.data
    if not decoder.is_batch(shape):
        images = decoder.view(shape, NUMPY_TYPES.get(tensor.dtype), data)
        if images is not None:
            return images[0]
    received = ReceivedTensor(BASELINE_SCHEMA, shape, _dtype_name(tensor.dtype), data)
    return decoder.violations(received)


def checked_images(request: ImageRequest[ImagesMessage], active: ActiveModel) -> np.ndarray:
    """Return the images [N, H, W] of a request to the active model.

    Raises:
        NotFoundError: the request names another model or version.
        InvalidArgumentError: the images are not right.
    """
    check_model(request.message, active)
    images = decode_images(request, active.decoder)
    if isinstance(images, list):
        raise InvalidArgumentError(images)
    return images


def check_model(message: ImagesMessage | OtherMessage, active: ActiveModel) -> None:
    """Check that a request asks for the active model, or for any.

    Raises:
        NotFoundError: it names another model or version.
    """
    if not message.HasField("model"):
        return
    selector, manifest = message.model, active.model.manifest
    if selector.name not in ("", manifest.name) or selector.version not in (0, manifest.version):
        name, version = selector.name or manifest.name, selector.version or "any"
        raise model_not_found(name, version, [manifest.name], manifest.version)


def _dtype_name(value: int) -> str:
    known = pb.DataType.DESCRIPTOR.values_by_number.get(value)
    return known.name if known else f"unknown data type {value}"
