"""The codec: every well-formed batch is read exactly, every fault of any other is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.codec import decode_images, encode_into
from server.api.forward_v1.zero_copy import ImageRequest
from server.engine.images import ImageDecoder
from server.errors import Violation

MAX_IMAGES = 6


@pytest.fixture(scope="module")
def decoder(bundle: Bundle) -> ImageDecoder:
    return ImageDecoder(bundle.manifest, MAX_IMAGES)


def tensor(array: np.ndarray) -> pb.Tensor:
    dtype = pb.DATA_TYPE_UINT8 if array.dtype == np.uint8 else pb.DATA_TYPE_FLOAT32
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.tobytes())


def request(images: pb.Tensor) -> ImageRequest[pb.PredictRequest]:
    return ImageRequest(pb.PredictRequest(images=images), images.data)


def violations(decoder: ImageDecoder, message: pb.Tensor) -> list[Violation]:
    decoded = decode_images(request(message), decoder)
    if isinstance(decoded, list):
        assert decoded, "what is refused is refused for a reason"
        return decoded
    return []


def view(decoder: ImageDecoder, message: pb.Tensor) -> np.ndarray:
    decoded = decode_images(request(message), decoder)
    assert not isinstance(decoded, list)
    return decoded


SHAPES = st.one_of(st.just((28, 28)), st.tuples(st.integers(1, MAX_IMAGES), *[st.just(28)] * 2))


@given(data=st.data(), shape=SHAPES)
def test_float_images_arrive_bit_by_bit(
    decoder: ImageDecoder, data: st.DataObject, shape: tuple[int, ...]
) -> None:
    array = data.draw(st_numpy.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    images = view(decoder, tensor(array))
    assert images.tobytes() == array.tobytes()
    assert images.shape == (array.size // 784, 28, 28)


@given(data=st.data(), shape=SHAPES)
def test_byte_images_arrive_as_the_bytes_they_are(
    decoder: ImageDecoder, data: st.DataObject, shape: tuple[int, ...]
) -> None:
    array = data.draw(st_numpy.arrays(np.uint8, shape))
    images = view(decoder, tensor(array))
    assert images.dtype == np.uint8
    assert images.tobytes() == array.tobytes()
    assert images.shape == (array.size // 784, 28, 28)


@given(
    dtype=st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, 2]),
    shape=st.lists(
        st.sampled_from([0, 1, 2, 27, 28, 784, -1, 2**62]) | st.integers(-(2**63), 2**63 - 1),
        max_size=9,
    ),
    data=st.binary(max_size=64),
)
def test_no_bytes_raise_and_only_images_pass(
    decoder: ImageDecoder, dtype: int, shape: list[int], data: bytes
) -> None:
    # 64 bytes are less than any image, so whatever comes is wrong.
    message = pb.Tensor(shape=shape, data=data)
    message.dtype = dtype  # type: ignore[assignment] # proto3 enums carry any number
    for violation in violations(decoder, message):
        assert violation.field.startswith("images.")
        assert "expected" in violation.description
        assert "got" in violation.description


ZERO = np.zeros((2, 28, 28), np.float32)
NAN = ZERO.copy()
NAN[1, 0, 3] = np.nan
INFINITE = ZERO.copy()
INFINITE[0, 0, 0] = -np.inf


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (tensor(ZERO[:, :27]), ["images.shape: expected [28, 28] or [N, 28, 28], got [2, 27, 28]"]),
        (tensor(ZERO[:, :, :27]), ["got [2, 28, 27]"]),
        (tensor(ZERO.reshape(2, 784)), ["got [2, 784]; send the rows as they are"]),
        (
            tensor(ZERO[None]),
            ["images.shape: expected [28, 28] or [N, 28, 28], got [1, 2, 28, 28]"],
        ),
        (tensor(ZERO[:0]), ["images.shape: expected 1 to 6 images, got 0; send at least one"]),
        (tensor(np.zeros((7, 28, 28), np.uint8)), ["1 to 6 images, got 7; split the batch"]),
        (
            pb.Tensor(shape=[2, 28, 28], data=ZERO.tobytes()),
            ["images.dtype: expected DATA_TYPE_FLOAT32 or DATA_TYPE_UINT8, got DATA_TYPE_UNSPEC"],
        ),
        (
            pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2, 28, 28], data=ZERO.tobytes()[:-1]),
            ["expected 6272 bytes for DATA_TYPE_FLOAT32 of shape [2, 28, 28], got 6271"],
        ),
        (
            pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2, 28, 28], data=bytes(1568)),
            ["got 1568; that is the size of DATA_TYPE_UINT8: set dtype to it"],
        ),
        (
            tensor(NAN),
            ["expected finite values, got 1 NaN and 0 infinite, the first at element 787"],
        ),
        (tensor(INFINITE), ["got 0 NaN and 1 infinite, the first at element 0"]),
        (
            tensor(ZERO + 255),
            ["expected values from 0 to 1, got 255 to 255; send UINT8 or divide by 255"],
        ),
        (
            pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2, 28, 28], data=bytes(12544)),
            ["got 12544; that is the size of 64-bit floats: convert them to 32 bits"],
        ),
        (tensor(ZERO + np.float32(1.0000001)), ["from 0 to 1, got 1.00000012 to 1.00000012"]),
        (tensor(ZERO - 0.5), ["expected values from 0 to 1, got -0.5 to -0.5"]),
        (tensor(NAN[:, :27] - 2), ["images.shape", "1 NaN", "got -2 to -2"]),
        (
            pb.Tensor(shape=[0, 28, 27], data=b"x"),
            ["got [0, 28, 27]", "got 0; send at least one", "images.dtype"],
        ),
    ],
)
def test_every_fault_is_named_with_expected_and_got(
    decoder: ImageDecoder, message: pb.Tensor, expected: list[str]
) -> None:
    found = [
        f"{violation.field}: {violation.description}" for violation in violations(decoder, message)
    ]
    assert len(found) == len(expected), found
    for text, part in zip(found, expected, strict=True):
        assert part in text


def test_a_long_shape_is_cut_in_errors(decoder: ImageDecoder) -> None:
    (violation,) = violations(
        decoder, pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[28] * 100_000, data=b"x")
    )
    assert "got [28, 28, 28, 28, 28," in violation.description
    assert "(length 100000)" in violation.description
    assert len(violation.description) < 200


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_images_are_a_view_of_the_request(decoder: ImageDecoder, dtype: type[np.generic]) -> None:
    images = view(decoder, tensor(ZERO.astype(dtype)))
    assert not images.flags.writeable
    assert images.base is not None


@given(
    st_numpy.arrays(np.float32, st_numpy.array_shapes(max_dims=3)),
)
def test_encoding_keeps_every_bit(array: np.ndarray) -> None:
    for each in (array, array.T):
        message = pb.Tensor()
        encode_into(message, each)
        assert (message.dtype, tuple(message.shape)) == (pb.DATA_TYPE_FLOAT32, each.shape)
        assert message.data == np.ascontiguousarray(each).tobytes()
