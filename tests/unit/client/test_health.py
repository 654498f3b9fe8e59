"""The health check's messages, written without the package that has them."""

from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from hypothesis import given
from hypothesis import strategies as st

from forward_client.health import HEALTH

Status = HealthCheckResponse.ServingStatus


@given(st.text())
def test_a_request_has_the_bytes_of_grpc_healths(service: str) -> None:
    written = StringValue(value=service).SerializeToString()
    assert written == HealthCheckRequest(service=service).SerializeToString()


def test_every_status_is_read_by_its_name() -> None:
    for name, number in Status.items():
        written = HealthCheckResponse(status=number).SerializeToString()
        assert HEALTH[Int32Value.FromString(written).value] == name
    assert len(HEALTH) == len(Status.keys())
