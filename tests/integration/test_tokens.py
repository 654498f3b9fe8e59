"""Bearer tokens: only calls with one are answered, of any service."""

import hmac
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import hypothesis
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import strategies as st

from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc
from forward_client import CredentialsError, ForwardClient, ForwardError
from forward_client.messages import tensor_of
from server.errors import StartError, UnauthenticatedError
from server.security import tokens as server_tokens
from server.security.tokens import TOKEN, Tokens, read_tokens
from tests.support.bundles import REPOSITORY, random_images
from tests.support.servers import (
    RunningServer,
    metric,
    run_server_until_it_ends,
    scrape,
    start_server,
    wait_until,
)

RIGHT, SECOND, WRONG = "right-token-0123456789", "second.token_0123456789==", "wrong-token-987654"
IMAGE = random_images(1, (28, 28))
Metadata = tuple[tuple[str, str | bytes], ...]


def write_tokens(path: Path, text: str) -> Path:
    """Write a file in one step, readable by its owner alone."""
    beside = path.with_suffix(".new")
    beside.touch(mode=0o600)
    beside.write_text(text)
    return beside.replace(path)


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    return write_tokens(path, f"\n  {RIGHT}\t\n\n{SECOND}\r\n")


@pytest.fixture(scope="module")
def guarded(token_file: Path, transport: str) -> Iterator[RunningServer]:
    """A server that wants a token, but not of health checks."""
    with start_server("--token-file", str(token_file), "--transport", transport) as server:
        yield server


def reflect(channel: grpc.Channel, metadata: Metadata) -> object:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return next(stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=60))


def predict(channel: grpc.Channel, metadata: Metadata) -> object:
    service = forward_pb2_grpc.ForwardServiceStub(channel)
    request = pb.PredictRequest(images=tensor_of(IMAGE))
    return service.Predict(request, metadata=metadata, timeout=60)


def predict_stream(channel: grpc.Channel, metadata: Metadata) -> object:
    service = forward_pb2_grpc.ForwardServiceStub(channel)
    requests = iter([pb.PredictStreamRequest(images=tensor_of(IMAGE))])
    return next(service.PredictStream(requests, metadata=metadata, timeout=60))


def trace(channel: grpc.Channel, metadata: Metadata) -> object:
    service = forward_pb2_grpc.ForwardServiceStub(channel)
    return service.Trace(pb.TraceRequest(images=tensor_of(IMAGE)), metadata=metadata, timeout=60)


def get_model(channel: grpc.Channel, metadata: Metadata) -> object:
    service = forward_pb2_grpc.ForwardServiceStub(channel)
    return service.GetModel(pb.GetModelRequest(), metadata=metadata, timeout=60)


def check_health(channel: grpc.Channel, metadata: Metadata) -> object:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=60)


def watch_health(channel: grpc.Channel, metadata: Metadata) -> object:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return next(stub.Watch(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=60))


Ask = Callable[[grpc.Channel, Metadata], object]
ASKS: list[Ask] = [predict, predict_stream, trace, get_model, reflect]
HEALTH_ASKS: list[Ask] = [check_health, watch_health]


def outcome(server: RunningServer, ask: Ask, *authorizations: str) -> tuple[str, str]:
    """Return the status of a call with such authorizations, and its text."""
    metadata = tuple(("authorization", value) for value in authorizations)
    with grpc.insecure_channel(server.address) as channel:
        try:
            assert ask(channel, metadata)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
    return "OK", ""


@pytest.mark.parametrize("ask", ASKS)
def test_every_method_is_answered_with_a_token_alone(guarded: RunningServer, ask: Ask) -> None:
    assert outcome(guarded, ask, f"Bearer {RIGHT}") == ("OK", "")
    assert outcome(guarded, ask, f"bearer  {SECOND}") == ("OK", "")
    assert outcome(guarded, ask)[0] == "UNAUTHENTICATED"
    assert outcome(guarded, ask, f"Bearer {WRONG}")[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("authorizations", "said"),
    [
        ((), "the call has no token; send 'authorization: Bearer <token>' as metadata"),
        ((f"Bearer {WRONG}",), "the call's token is not one of the server's; send"),
        ((f"Bearer {RIGHT[:-1]}",), "not one of the server's"),
        ((f"Bearer {RIGHT}x",), "not one of the server's"),
        ((RIGHT,), "malformed; send"),
        ((f"Basic {RIGHT}",), "malformed"),
        ((f"Bearer {RIGHT} {RIGHT}",), "malformed"),
        (("Bearer",), "malformed"),
        (("Bearer ",), "malformed"),
        (("",), "malformed"),
        ((f"Bearer {RIGHT}", f"Bearer {RIGHT}"), "has 2 authorizations"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_never_what_came(
    guarded: RunningServer, authorizations: tuple[str, ...], said: str
) -> None:
    code, text = outcome(guarded, predict, *authorizations)
    assert code == "UNAUTHENTICATED"
    assert said in text
    assert "token-" not in text
    assert not any(value[7:] in text for value in authorizations if value[7:])


def test_unknown_methods_need_a_token_too(guarded: RunningServer) -> None:
    def ask(channel: grpc.Channel, metadata: Metadata) -> object:
        call: Any = channel.unary_unary("/forward.v1.ForwardService/Nothing")
        return call(b"", metadata=metadata)

    assert outcome(guarded, ask)[0] == "UNAUTHENTICATED"
    assert outcome(guarded, ask, f"Bearer {RIGHT}")[0] == "UNIMPLEMENTED"
    codes = {dict(labels).get("grpc_method") for _, labels in scrape(guarded)}
    assert "Nothing" not in codes, "labels never come from a client"


def test_a_refused_stream_ends_though_nothing_is_sent(guarded: RunningServer) -> None:
    ended = threading.Event()

    def nothing_for_long() -> Iterator[pb.PredictStreamRequest]:
        ended.wait(60)
        yield from ()

    with grpc.insecure_channel(guarded.address) as channel:
        service = forward_pb2_grpc.ForwardServiceStub(channel)
        call = service.PredictStream(nothing_for_long(), timeout=60)
        with pytest.raises(grpc.RpcError) as refused:
            next(call)
        assert not ended.is_set()
        ended.set()
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_refused_calls_are_counted(guarded: RunningServer) -> None:
    for ask, method, kind in (
        (predict, "Predict", "unary"),
        (predict_stream, "PredictStream", "bidi_stream"),
    ):

        def refused(method: str = method, kind: str = kind) -> float:
            return metric(
                guarded,
                "grpc_server_handled_total",
                grpc_service="forward.v1.ForwardService",
                grpc_method=method,
                grpc_type=kind,
                grpc_code="UNAUTHENTICATED",
            )

        before = refused()
        assert outcome(guarded, ask)[0] == "UNAUTHENTICATED"
        assert refused() == before + 1


@pytest.mark.parametrize("ask", HEALTH_ASKS)
def test_health_needs_no_token(guarded: RunningServer, ask: Ask) -> None:
    assert outcome(guarded, ask) == ("OK", "")
    assert outcome(guarded, ask, f"Bearer {WRONG}") == ("OK", "")


def test_health_needs_a_token_if_that_was_set(token_file: Path) -> None:
    with start_server("--token-file", str(token_file), "--health-needs-token") as server:
        for ask in HEALTH_ASKS:
            assert outcome(server, ask)[0] == "UNAUTHENTICATED"
            assert outcome(server, ask, f"Bearer {RIGHT}") == ("OK", "")


def test_the_library_and_the_command_show_their_token(
    guarded: RunningServer, token_file: Path
) -> None:
    with ForwardClient(guarded.address, token=RIGHT) as caller:
        assert caller.predict(IMAGE).logits.shape == (1, 10)
        (streamed,) = caller.predict_stream([IMAGE])
        assert not isinstance(streamed, ForwardError)
        assert RIGHT not in repr(caller)
    with ForwardClient(guarded.address) as caller, pytest.raises(ForwardError) as refused:
        caller.model()
    assert refused.value.code == "UNAUTHENTICATED"
    for flags, status in ((("--token-file", str(token_file)), 0), ((), 1)):
        command = [sys.executable, "-m", "client", "predict", "docs/digit.png", "--json"]
        done = subprocess.run(
            [*command, "--address", guarded.address, *flags],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status
        assert ("UNAUTHENTICATED: the call has no token" in done.stderr) == bool(status)
        assert ("(--token-file FILE)" in done.stderr) == bool(status)
        assert RIGHT not in done.stdout + done.stderr


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "tökén"])
def test_an_impossible_token_fails_before_any_call(token: str) -> None:
    with pytest.raises(CredentialsError, match="expected a token") as refused:
        ForwardClient(token=token)
    assert not token or token not in str(refused.value)


def test_tokens_are_rotated_without_a_restart(tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "tokens", RIGHT)
    with start_server("--token-file", str(file)) as server:

        def taken(token: str) -> bool:
            return outcome(server, get_model, f"Bearer {token}")[0] == "OK"

        assert (taken(RIGHT), taken(SECOND)) == (True, False)
        write_tokens(file, f"{SECOND}\n{RIGHT}\n")

        def both_from_now_on() -> bool:
            assert taken(RIGHT), "there was a gap"
            return taken(SECOND)

        wait_until(both_from_now_on)
        write_tokens(file, SECOND)
        wait_until(lambda: not taken(RIGHT))
        assert taken(SECOND)
        write_tokens(file, "\n")

        def complaints() -> list[str]:
            assert taken(SECOND), "a file without tokens leaves the old"
            return [line["reason"] for line in server.log() if "not renewed" in line["event"]]

        wait_until(lambda: bool(complaints()))
        assert complaints() == [f"--token-file {file}: has no token; expected one a line"]
        log = server.log_path.read_text()
    assert RIGHT not in log
    assert SECOND not in log


@pytest.mark.one_transport
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "has no token; expected one a line"),
        (" \n\t\n", "has no token; expected one a line"),
        (f"{RIGHT}\n{RIGHT} with words\n", "line 2 is no token; expected letters"),
        (f"Bearer {RIGHT}\n", "line 1 is no token"),
        (None, "can't be read: No such file"),
    ],
)
def test_a_wrong_file_of_tokens_stops_the_start_by_name(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_text(content)
    done = run_server_until_it_ends("--token-file", str(file))
    assert done.returncode == 1
    assert f"can't start: --token-file {file}: {reason}" in done.stderr
    assert RIGHT not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.one_transport
def test_health_that_needs_a_token_needs_tokens() -> None:
    done = run_server_until_it_ends("--health-needs-token")
    assert done.returncode == 2
    assert "--health-needs-token needs --token-file beside it" in done.stderr


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_a_world_readable_token_file_gives_a_warning(
    tmp_path: Path, mode: int, warnings: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_tokens(tmp_path / "tokens", RIGHT)
    file.chmod(mode)
    read_tokens(file)
    written = capsys.readouterr().out
    assert written.count("readable by every user") == warnings
    assert RIGHT not in written


def test_every_token_is_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the standard library's own comparison, each time with all of the tokens."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(server_tokens, "compare_digest", compare)
    tokens = Tokens(write_tokens(tmp_path / "tokens", f"{RIGHT}\n{SECOND}"))
    tokens.check([("authorization", f"Bearer {RIGHT}")])
    assert compared == [(RIGHT.encode(), RIGHT.encode()), (RIGHT.encode(), SECOND.encode())]
    with pytest.raises(UnauthenticatedError):
        tokens.check([("authorization", f"Bearer {WRONG}")])
    assert [other for _, other in compared[2:]] == [RIGHT.encode(), SECOND.encode()]


@hypothesis.given(
    authorization=st.one_of(
        st.text(), st.binary(), st.text().map("Bearer {}".format), st.just(f"Bearer {RIGHT}")
    )
)
def test_whatever_comes_is_let_through_or_refused(
    token_file: Path, authorization: str | bytes
) -> None:
    tokens = Tokens(token_file)
    text = authorization if isinstance(authorization, str) else authorization.decode("latin-1")
    scheme, _, token = text.partition(" ")
    right = scheme.lower() == "bearer" and token.strip() in {RIGHT, SECOND}
    try:
        tokens.check([("authorization", authorization)])
    except UnauthenticatedError:
        assert not right
    else:
        assert right


@hypothesis.given(content=st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_file_gives_tokens_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_bytes(content)
    file.chmod(0o600)
    lines = {line.strip() for line in content.splitlines()} - {b""}
    if lines and all(TOKEN.fullmatch(line) for line in lines):
        assert set(read_tokens(file)) == lines
    else:
        with pytest.raises(StartError, match=re.escape(str(file))):
            read_tokens(file)
