"""Large requests are read where they lie, and mean what protobuf says they mean."""

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from forward.v1 import forward_pb2 as pb
from server.api.forward_v1 import zero_copy
from server.api.forward_v1.zero_copy import MIN_BYTES, ImageRequest, parse

LARGE = bytes(range(256)) * (MIN_BYTES // 256 + 1)
TYPES = (pb.PredictRequest, pb.PredictStreamRequest, pb.TraceRequest)


def large_request(**tensor: Any) -> pb.TraceRequest:  # noqa: ANN401 (fields of a Tensor)
    fields: dict[str, Any] = {"dtype": pb.DATA_TYPE_UINT8, "shape": [3, 28, 28], "data": LARGE}
    return pb.TraceRequest(
        images=pb.Tensor(**{**fields, **tensor}),
        model=pb.ModelSelector(name="mnist", version=2),
        stages=[pb.StageSelection(name="relu", detail=pb.DETAIL_FULL)],
        top_k_count=-1,
    )


def assert_same(read: ImageRequest[Any], message: Any) -> None:  # noqa: ANN401 (a message)
    """Compare all of a request."""
    assert bytes(read.image_data) == message.images.data
    for field in ("images", "model"):
        assert read.message.HasField(field) == message.HasField(field)
    rest = type(message).FromString(message.SerializeToString())
    for each in (rest, read.message):
        each.images.ClearField("data")
    assert read.message.SerializeToString(True) == rest.SerializeToString(True)


def test_large_image_data_is_a_view_of_the_request() -> None:
    message = large_request()
    request = message.SerializeToString()
    read = parse(pb.TraceRequest, request)
    assert not read.message.images.data
    assert_same(read, message)
    view = np.frombuffer(read.image_data, np.uint8)
    assert np.shares_memory(view, np.frombuffer(request, np.uint8))


def test_a_small_request_is_protobufs_own() -> None:
    message = pb.PredictRequest(images=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, data=bytes(784)))
    assert parse(pb.PredictRequest, message.SerializeToString()).message == message


@given(
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    dtype=st.integers(0, 2**31 - 1),
    size=st.integers(MIN_BYTES - 100, MIN_BYTES + 100),
    name=st.text(max_size=20),
)
def test_any_valid_request_reads_the_same(
    shape: list[int], dtype: int, size: int, name: str
) -> None:
    message = large_request(shape=shape, data=LARGE[:size])
    message.images.dtype = dtype  # type: ignore[assignment] # proto3 enums carry any number
    message.model.name = name
    assert_same(parse(pb.TraceRequest, message.SerializeToString()), message)


def twice(request: bytes) -> bytes:
    return request + request


def with_unknown_fields(request: bytes) -> bytes:
    # Field 100 in every wire type that has no group: varint, 64 bits, bytes, 32 bits.
    return b"\xa0\x06\x07" + b"\xa1\x06" + bytes(8) + request + b"\xa2\x06\x02hi" + b"\xa5\x06abcd"


def with_a_group(request: bytes) -> bytes:
    return b"\xa3\x06\x08\x01\xa4\x06" + request


def with_a_long_varint(request: bytes) -> bytes:
    return b"\x8a\x80\x80\x80\x80\x00" + request[1:]  # the tag of images in six bytes


@pytest.mark.parametrize("odd", [twice, with_unknown_fields, with_a_group, with_a_long_varint])
@pytest.mark.parametrize("message_type", TYPES)
def test_odd_valid_bytes_read_as_in_protobuf(
    odd: Any,  # noqa: ANN401 (a function)
    message_type: Any,  # noqa: ANN401 (a message)
) -> None:
    request = odd(large_request().SerializeToString())
    try:
        expected = message_type.FromString(request)
    except DecodeError:
        with pytest.raises(DecodeError):
            parse(message_type, request)
    else:
        assert_same(parse(message_type, request), expected)


HEAD = large_request().SerializeToString()


@given(
    at=st.integers(0, 40),
    put=st.binary(max_size=12),
    cut=st.integers(0, 12),
    message_type=st.sampled_from(TYPES),
)
@example(at=0, put=b"", cut=1, message_type=pb.PredictRequest)
def test_damaged_bytes_are_judged_as_protobuf_judges_them(
    at: int,
    put: bytes,
    cut: int,
    message_type: Any,  # noqa: ANN401 (a message)
) -> None:
    for request in (HEAD[:at] + put + HEAD[at + cut :], HEAD[: -at or None] + put):
        try:
            expected = message_type.FromString(request)
        except DecodeError:
            expected = None
        try:
            read: Any = parse(message_type, request)
        except DecodeError:
            read = None
        assert (read is None) == (expected is None)
        if expected is not None:
            assert_same(read, expected)


def test_large_requests_without_large_images_are_protobufs() -> None:
    message = large_request(data=b"12")
    message.stages.extend([pb.StageSelection(name="x" * 100)] * 1000)
    assert parse(pb.TraceRequest, message.SerializeToString()).message == message


def test_many_tiny_fields_are_left_to_protobuf() -> None:
    request = b"\x78\x00" * 1_000_000 + large_request().SerializeToString()
    steps = 0
    original = zero_copy._read_varint

    def counted(*arguments: Any, **options: Any) -> tuple[int, int]:  # noqa: ANN401 (passed on)
        nonlocal steps
        steps += 1
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero_copy, "_read_varint", counted)
        assert_same(parse(pb.TraceRequest, request), pb.TraceRequest.FromString(request))
    assert steps <= 2 * MIN_BYTES
