"""The Open Inference Protocol's ModelInfer, as far as one tensor each way needs it."""

from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_Field = descriptor_pb2.FieldDescriptorProto
_STRING, _INT64, _BYTES = _Field.TYPE_STRING, _Field.TYPE_INT64, _Field.TYPE_BYTES
# Field numbers are those of the protocol; fields left out are skipped on reading.
_TENSOR = (("name", 1, _STRING, False), ("datatype", 2, _STRING, False), ("shape", 3, _INT64, True))
_REQUEST = (("model_name", 1, _STRING, False), ("raw_input_contents", 7, _BYTES, True))
_RESPONSE = (("raw_output_contents", 6, _BYTES, True),)


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="bench/peers/oip.proto", package="bench.peers", syntax="proto3"
    )
    for name, fields in (("Tensor", _TENSOR), ("Request", _REQUEST), ("Response", _RESPONSE)):
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, label=label)
    file.message_type[1].field.add(
        name="inputs",
        number=5,
        type=_Field.TYPE_MESSAGE,
        type_name=".bench.peers.Tensor",
        label=_Field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessages([file], pool)


_MESSAGES = _messages()


def request(images: np.ndarray) -> bytes:
    """Return a request for the logits of float32 images, [N, 28, 28]."""
    message = _MESSAGES["bench.peers.Request"](model_name="mnist")
    message.inputs.add(name="images", datatype="FP32", shape=images.shape)
    message.raw_input_contents.append(images.tobytes())
    return message.SerializeToString()


def bytes_request(images: np.ndarray) -> bytes:
    """Return the same request with each image as an element of type BYTES."""
    message = _MESSAGES["bench.peers.Request"](model_name="mnist")
    message.inputs.add(name="images", datatype="BYTES", shape=[len(images), 1])
    elements = [image.tobytes() for image in images]
    sized = (len(each).to_bytes(4, "little") + each for each in elements)
    message.raw_input_contents.append(b"".join(sized))
    return message.SerializeToString()


def logits(response: bytes) -> np.ndarray:
    """Return the logits of a response, [N, 10]."""
    message = _MESSAGES["bench.peers.Response"].FromString(response)
    return np.frombuffer(message.raw_output_contents[0], np.float32).reshape(-1, 10)
