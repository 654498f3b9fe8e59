"""Requests with what the Python services answer: the oracle of the native lane's codec.

`python -m tests.support.native_messages` writes them to native/tests/messages.txt, where Rust's
tests read them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import Message

from export.architecture import mlp
from export.bundle.manifest import Manifest
from forward.v1 import forward_pb2 as pb
from inference import open_inference_pb2 as oip
from server.api.forward_v1.codec import identity_message
from server.api.forward_v1.service import ForwardService
from server.api.methods import StreamMethod, UnaryMethod
from server.api.open_inference.service import InferenceService
from server.engine.batched import BatchedResult
from server.engine.images import ImageDecoder
from server.engine.instance import Submission
from server.engine.staging import pixels_of
from server.errors import ServiceError, UnavailableError
from server.limits import RequestLimits
from server.observability.metrics import ServerMetrics
from server.observability.runs import Run
from server.repository.current import ModelIdentity
from tests.support.servers import BareContext

ROOT = Path(__file__).parents[2]
FILE = ROOT / "native" / "tests" / "messages.txt"
LIMITS = RequestLimits(max_batch_images=200, max_response_bytes=1 << 20)
ODD_LOGITS = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -3.4e38, 0.1)
SEED = 17


class Answer(NamedTuple):
    """What Python makes of a request: the pixels that it would run, and its response."""

    pixels: bytes
    logits: bytes  # that the run gave
    response: bytes


class Served:
    """A model under the real services, whose runs give logits drawn at random."""

    def __init__(self, name: str, version: int, shape: tuple[int, int], classes: int) -> None:
        text = (ROOT / "models" / "mnist" / "1" / "manifest.json").read_bytes()
        stages = mlp(shape, [3], classes)
        changes = {"name": name, "version": version, "stages": stages}
        self.manifest = Manifest.model_validate_json(text).model_copy(update=changes)
        self.identity = ModelIdentity(name, version, "onnx")
        self.classes = classes
        self._random = np.random.default_rng(SEED)
        self._ran: list[tuple[bytes, bytes]] = []
        active = SimpleNamespace(
            identity=self.identity,
            decoder=ImageDecoder(self.manifest, LIMITS.max_batch_images),
            model=SimpleNamespace(manifest=self.manifest),
            instance=SimpleNamespace(predict=self._predict, trace=_refuse_trace),
        )
        current: Any = SimpleNamespace(active=active)  # what is read of a CurrentModel
        forward = ForwardService(current, LIMITS).table()
        inference = InferenceService(
            current, LIMITS, lambda: False, lambda _: [], ServerMetrics()
        ).table()
        self._methods: dict[str, Any] = {
            method.name: method for method in (*forward.methods, *inference.methods)
        }

    def _predict(self, images: np.ndarray, *_: object) -> Submission[np.ndarray]:
        logits = self._random.normal(size=(len(images), self.classes)).astype(np.float32)
        logits.flat[: len(ODD_LOGITS)] = ODD_LOGITS[: logits.size]
        self._ran.append((pixels_of(images).tobytes(), logits.tobytes()))
        result = asyncio.get_running_loop().create_future()
        result.set_result(BatchedResult(logits, 0.0, Run("predict", 0.0, 0.0, 1, len(images), [])))
        return Submission(result, lambda: None)

    def answer(self, method: str, request: bytes) -> Answer | None:
        """Return the answer to a request, or None if it is an error or takes another way."""
        self._ran.clear()
        response = asyncio.run(self._respond(self._methods[method], request))
        if response is None or not self._ran:
            return None
        (ran,) = self._ran
        return Answer(*ran, response.SerializeToString())

    async def _respond(
        self, method: UnaryMethod[Any] | StreamMethod[Any], request: bytes
    ) -> Message | None:
        context = BareContext()
        try:
            decoded = method.decode(request)
            if not isinstance(method, StreamMethod):
                return await method.function(decoded, context)
        except ServiceError:
            return None

        async def messages() -> AsyncIterator[Any]:
            yield decoded

        (response,) = [each async for each in method.function(messages(), context)]
        return None if response.HasField("error") else response


def _refuse_trace(*_: object) -> None:
    raise UnavailableError("only logits alone are of interest here")


TINY = Served("tiny", 300, (2, 3), 4)
MNIST = Served("mnist", 1, (28, 28), 10)


class Case(NamedTuple):
    """A request, and whether the lane is to answer it; it may leave any to Python."""

    served: Served
    method: str
    is_taken: bool
    request: bytes


def cases() -> Iterator[Case]:
    """Yield requests of every method, those that the lane takes and those that it must leave."""
    for request in _taken_predictions():
        yield Case(TINY, "Predict", True, request)
        yield Case(TINY, "PredictStream", True, request)
    for request in _left_predictions():
        yield Case(TINY, "Predict", False, request)
        yield Case(TINY, "PredictStream", False, request)
    for request in _taken_inferences():
        yield Case(TINY, "ModelInfer", True, request)
    for request in _left_inferences():
        yield Case(TINY, "ModelInfer", False, request)
    for served, count in ((MNIST, 1), (TINY, 130)):
        pixels = np.arange(count * prod(served.manifest.input_shape)).astype(np.uint8)
        shape = (count, *served.manifest.input_shape)
        yield Case(served, "Predict", True, _predict(_tensor(shape, pixels)))
        yield Case(served, "ModelInfer", True, _infer(served.manifest.name, shape, pixels))


BYTES = np.array([0, 1, 2, 127, 254, 255], np.uint8)
FLOATS = np.array([0, 1e-45, 0.1, 0.5, np.nextafter(1, 0), 1], np.float32)
DTYPES = {"u": pb.DATA_TYPE_UINT8, "f": pb.DATA_TYPE_FLOAT32}
DATATYPES = {"u": "UINT8", "f": "FP32"}


def _tensor(shape: Sequence[int], values: np.ndarray) -> pb.Tensor:
    dtype = DTYPES[values.dtype.kind]
    return pb.Tensor(dtype=dtype, shape=shape, data=values.tobytes())


def _predict(images: pb.Tensor, name: str = "", version: int = 0) -> bytes:
    model = pb.ModelSelector(name=name, version=version) if name or version else None
    return pb.PredictRequest(images=images, model=model).SerializeToString()


def _field(number: int, content: bytes) -> bytes:
    """Return a field with a length of less than 128."""
    return bytes((number << 3 | 2, len(content))) + content


def _taken_predictions() -> Iterator[bytes]:
    one, many = _tensor((2, 3), BYTES), _tensor((2, 2, 3), np.tile(FLOATS, 2))
    for images in (one, many, _tensor((1, 2, 3), FLOATS), _tensor((3, 2, 3), np.tile(BYTES, 3))):
        yield _predict(images)
    yield _predict(many, name="tiny", version=300)
    yield _predict(one, name="tiny")
    yield _predict(one, version=300)
    sent = _field(1, one.SerializeToString())
    yield sent + _field(2, b"")  # a selector of any model
    yield sent + _field(2, _field(1, b"") + b"\x10\x00")  # the same, said
    yield _field(2, b"") + sent  # not in the order of the numbers
    data, shape = _field(3, BYTES.tobytes()), _field(2, b"\x02\x03")
    yield _field(1, data + shape + b"\x08\x02")


def _left_predictions() -> Iterator[bytes]:
    one = _tensor((2, 3), BYTES)
    whole = _predict(one)
    images, data, shape = (
        _field(1, one.SerializeToString()),
        _field(3, BYTES.tobytes()),
        _field(2, b"\x02\x03"),
    )
    yield b""
    for cut in range(1, len(whole)):
        yield whole[:cut]
    yield whole + whole  # merged: a shape of four
    yield images + _field(1, b"")  # merged: the same
    yield images + _field(1, data)  # merged: the last data count
    yield whole + _field(15, b"x")  # unknown
    yield whole + b"\x18\x01"
    yield whole + b"\x1b\x1c"  # an unknown group
    yield whole + b"\x1b"  # without its end
    yield whole + b"\x00"
    yield _field(1, b"\x08\x02" + shape + data + b"\x20\x01")
    yield _field(1, b"\x08\x02\x08\x01" + shape + data)  # twice: the last counts
    yield _field(1, b"\x08\x01\x08\x02" + shape + data)
    yield _field(1, b"\x08\x02\x10\x02\x10\x03" + data)  # a shape that is not packed
    yield _field(1, b"\x08\x02\x10\x02" + _field(2, b"\x03") + data)  # partly
    yield _field(1, b"\x08\x82\x00" + shape + data)  # a dtype that is not minimal
    yield _field(1, b"\x08\x02" + _field(2, b"\x82\x00\x03") + data)
    yield b"\x8a\x00" + images[1:]  # a tag
    yield b"\x0a" + bytes((images[1] | 0x80, 0)) + images[2:]  # a length
    yield _field(1, b"\x08\x82\x80\x80\x80\x80\x80\x80\x80\x80\x01" + shape + data)  # 2^63 + 2
    yield _field(1, b"\x08\x82\x80\x80\x80\x10" + shape + data)  # 2^32 + 2: an enum has 32 bits
    yield _field(1, shape + data)
    yield _field(1, b"\x08\x02" + data)
    yield _field(1, b"\x08\x02" + shape)
    yield _field(1, b"\x0d\x02\x00\x00\x00" + shape + data)  # another wire type
    yield _field(2, b"")
    yield _predict(one, name="other")
    yield _predict(one, name="tiny", version=301)
    yield _predict(one, version=-1)
    yield images + _field(2, _field(1, b"\xff"))  # no UTF-8
    yield images + _field(2, _field(1, b"tiny") + _field(1, b"tiny"))
    yield images + _field(2, _field(1, b"tiny")) + _field(2, b"\x10\xac\x02")  # merged
    yield _predict(pb.Tensor(dtype=pb.DATA_TYPE_FLOAT16, shape=(2, 3), data=bytes(12)))
    for shape_of_one in (
        (),
        (6,),
        (3, 2),
        (1, 1, 2, 3),
        (2, 2, 3),
        (0, 2, 3),
        (-1, 2, 3),
        (2, 3, 1),
    ):
        yield _predict(_tensor(shape_of_one, BYTES))
    yield _predict(_tensor((201, 2, 3), np.tile(BYTES, 201)))
    yield _field(1, b"\x08\x02" + _field(2, b"\x00\x02\x03") + _field(3, b""))  # no image
    yield _predict(_tensor((2, 3), FLOATS[:5]))
    for value in (-0.0, np.nextafter(np.float32(1), np.float32(2)), np.nan, np.inf, -1, 255):
        yield _predict(_tensor((2, 3), np.append(FLOATS[:5], np.float32(value))))


def _infer(name: str, shape: Sequence[int], values: np.ndarray, **fields: object) -> bytes:
    datatype = DATATYPES[values.dtype.kind]
    inputs = [{"name": "images", "datatype": datatype, "shape": shape}]
    message: dict[str, Any] = {"inputs": inputs, "raw_input_contents": [values.tobytes()], **fields}
    return oip.ModelInferRequest(model_name=name, **message).SerializeToString()


ONE = (1, 2, 3)
LOGITS = [{"name": "logits"}]


def _taken_inferences() -> Iterator[bytes]:
    yield _infer("tiny", ONE, BYTES)
    yield _infer("tiny", (2, 2, 3), np.tile(FLOATS, 2), id="7")
    yield _infer("tiny", ONE, FLOATS, model_version="300", outputs=LOGITS)
    yield _infer("tiny_trace", ONE, BYTES, outputs=LOGITS, id="ä\0" * 70)
    whole = oip.ModelInferRequest.FromString(_infer("tiny", ONE, BYTES))
    fields = [_field(1, b"tiny"), _field(5, whole.inputs[0].SerializeToString())]
    yield b"".join([_field(7, BYTES.tobytes()), *reversed(fields), _field(2, b""), _field(3, b"")])


def _left_inferences() -> Iterator[bytes]:
    whole = _infer("tiny", ONE, BYTES, id="a", model_version="300", outputs=LOGITS)
    yield b""
    for cut in range(1, len(whole)):
        yield whole[:cut]
    parameter = {"x": oip.InferParameter(int64_param=1)}
    image = {"name": "images", "datatype": "UINT8", "shape": ONE}
    yield _infer("tiny_trace", ONE, BYTES)  # every stage
    yield _infer("", ONE, BYTES)
    yield _infer("other", ONE, BYTES)
    for version in ("0300", "301", "1.0", "x"):
        yield _infer("tiny", ONE, BYTES, model_version=version)
    yield _infer("tiny", ONE, BYTES, parameters=parameter)
    yield _infer("tiny", ONE, BYTES, inputs=[{**image, "parameters": parameter}])
    yield _infer("tiny", ONE, BYTES, outputs=[{"name": "logits", "parameters": parameter}])
    for names in (
        ["relu"],
        ["linear2"],
        ["logits", "relu"],
        ["logits", "logits"],
        ["nothing"],
        [""],
    ):
        yield _infer("tiny", ONE, BYTES, outputs=[{"name": name} for name in names])
    yield _infer("tiny", ONE, BYTES, inputs=[image, image])
    yield _infer("tiny", ONE, BYTES, inputs=[])
    yield _infer("tiny", ONE, BYTES, inputs=[{**image, "name": "image"}])
    yield _infer("tiny", ONE, BYTES, inputs=[{**image, "datatype": "INT8"}])
    contents = {"uint_contents": BYTES}
    yield _infer("tiny", ONE, BYTES, inputs=[{**image, "contents": contents}])
    yield _infer("tiny", ONE, BYTES, inputs=[{**image, "contents": {}}])
    yield _infer(
        "tiny", ONE, BYTES, inputs=[{**image, "contents": contents}], raw_input_contents=[]
    )
    yield _infer("tiny", ONE, BYTES, raw_input_contents=[BYTES.tobytes()] * 2)
    yield _infer("tiny", (2, 3), BYTES)  # one image has N = 1
    yield _infer("tiny", (201, 2, 3), np.tile(BYTES, 201))
    yield _infer("tiny", (0, 2, 3), BYTES[:0])
    yield _infer("tiny", ONE, np.append(FLOATS[:5], np.float32(-0.0)))
    yield whole + _field(3, b"b")  # twice: the last counts
    yield whole.replace(_field(3, b"a"), _field(3, b"\xff"))  # no UTF-8
    yield whole + _field(9, b"b")


def lines() -> Iterator[str]:
    """Yield the lines of the file."""
    yield "# Made by `python -m tests.support.native_messages`."
    for served in (TINY, MNIST):
        manifest = served.manifest
        shape = ",".join(map(str, manifest.input_shape))
        identity = identity_message(served.identity).SerializeToString().hex()
        limit = LIMITS.max_batch_images
        description = (manifest.name, manifest.version, shape, served.classes, limit, identity)
        yield " ".join(["model", *map(str, description)])
        for case in cases():
            if case.served is served:
                request = case.request
                answer = served.answer(case.method, request)
                answered = ["-"] * 3 if answer is None else [each.hex() for each in answer]
                taken = "lane" if case.is_taken else "python"
                yield " ".join([case.method, taken, request.hex() or "-", *answered])


def main() -> None:
    """Write the file."""
    FILE.write_text("\n".join(lines()) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
