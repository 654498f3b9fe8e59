"""gRPC's options: what one connection may do, and when it is closed."""

from server.config import ServerSettings

# A client must complete the HTTP/2 handshake within this.
HANDSHAKE_SECONDS = 20
# A ping has as long to be answered as the silence before it, and at most this.
MAX_PING_SECONDS = 20
# Clients ping every 10 s at most (grpc-go enforces it); half of that takes in their jitter.
# gRPC forgives two pings that come earlier, and ends the connection at the third.
MIN_PING_SECONDS = 5
MAX_MILLISECONDS = 2**31 - 1  # gRPC's options are of 32 bits; this means never


def connection_options(
    settings: ServerSettings, max_request_bytes: int, max_connections: int
) -> list[tuple[str, int]]:
    """Return the options of grpc that hold connections, and each request, to their limits."""
    options = [
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_receive_message_length", max_request_bytes),
        # Below the one gRPC refuses never, above the other always, and between them by chance.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.server_handshake_timeout_ms", _milliseconds(HANDSHAKE_SECONDS)),
        # Both ways: idle connections are pinged, and clients may ping while they are idle.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(MIN_PING_SECONDS)),
    ]
    if settings.keepalive_time:
        timeout = _milliseconds(min(settings.keepalive_time, MAX_PING_SECONDS))
        options += [
            ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive_time)),
            # Not grpc.keepalive_timeout_ms: with that alone grpc 1.85 takes a minute.
            ("grpc.http2.ping_timeout_ms", timeout),
        ]
    else:
        options.append(("grpc.keepalive_time_ms", MAX_MILLISECONDS))  # else every two hours
    if settings.max_connection_age:
        options += [
            ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age)),
            # What the calls of a connection that is too old get to finish.
            ("grpc.max_connection_age_grace_ms", _milliseconds(settings.drain_timeout)),
        ]
    return options


def _milliseconds(seconds: float) -> int:
    return min(max(1, round(seconds * 1000)), MAX_MILLISECONDS)
