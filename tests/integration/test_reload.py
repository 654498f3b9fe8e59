"""Versions come, go and break under a server that answers all the time."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from bench.scenarios.reload import reload_under_load
from export.bundle import Bundle, versions
from export.bundle.manifest import MANIFEST_NAME
from export.bundle.publishing import write_bundle, write_manifest
from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc
from forward_client import ForwardClient
from tests.support.bundles import (
    REPOSITORY,
    TINY_LABELS,
    publish_random_bundle,
    random_images,
)
from tests.support.checked_load import CheckedLoad, oracle
from tests.support.servers import (
    RunningServer,
    metric,
    scrape,
    server_command,
    start_server,
    wait_until,
)

FAST = ("--reload-interval", "0.1")
NEVER = ("--reload-interval", "0")
POLLS_SECONDS = 1.0  # in which a fast server polls several times


def models_dir_of(bundle: Bundle) -> Path:
    return bundle.path.parent.parent


def publish(bundle: Bundle) -> Bundle:
    """Publish the next version of a tiny bundle, with other weights."""
    return publish_random_bundle(models_dir_of(bundle), bundle.manifest.name)


@contextmanager
def serving(bundle: Bundle, *arguments: str) -> Iterator[tuple[RunningServer, CheckedLoad]]:
    """Serve the folder of a tiny bundle under a load that expects the bundle's answers."""
    load = CheckedLoad()
    load.expect(bundle)
    folder = ("--models-dir", str(models_dir_of(bundle)), "--model", bundle.manifest.name)
    with start_server(*folder, "--device", "cpu", *arguments) as server, load.on(server):
        load.wait_for(bundle.manifest.version)
        yield server, load


def model_of(server: RunningServer) -> pb.GetModelResponse:
    with grpc.insecure_channel(server.address) as channel:
        response: pb.GetModelResponse = forward_pb2_grpc.ForwardServiceStub(channel).GetModel(
            pb.GetModelRequest(), timeout=30
        )
    return response


def hang_up(server: RunningServer) -> None:
    server.process.send_signal(signal.SIGHUP)


def failures(server: RunningServer) -> float:
    return metric(server, "forward_model_reloads_total", result="failure")


def failure_lines(server: RunningServer) -> list[str]:
    return [entry["reason"] for entry in server.log() if entry["event"] == "reload failed"]


def wait_for_failure(server: RunningServer, text: str) -> None:
    """Wait until GetModel tells of a failure; metrics must agree."""
    wait_until(lambda: text in model_of(server).reload.failure.message, 40)
    assert metric(server, "forward_model_last_reload_successful") == 0
    assert failures(server) >= 1


def test_reloads_under_load_fail_no_call() -> None:
    seen = reload_under_load(5, callers=8)
    assert seen.counts.failed == {}
    assert seen.counts.wrong == seen.counts.backwards == 0
    assert set(seen.counts.versions) == {"1", "2", "3", "4", "5", "6"}
    assert sum(seen.counts.versions.values()) == seen.counts.answered > 100


def test_a_new_version_is_loaded_a_removed_rolled_back(
    tiny: Bundle,
) -> None:
    with serving(tiny, *FAST) as (server, load):
        before = model_of(server)
        assert before.manifest_sha256 == tiny.manifest.sha256
        assert not before.reload.HasField("failure")
        newer = load.expect(publish(tiny))
        load.wait_for(2)
        after = model_of(server)
        assert after.manifest_sha256 == newer.manifest.sha256
        assert after.reload.loaded_time.ToNanoseconds() > before.reload.loaded_time.ToNanoseconds()
        shown = [labels for name, labels in scrape(server) if name == "forward_model_info"]
        assert [dict(labels)["version"] for labels in shown] == ["2"]
        shutil.rmtree(newer.path)
        load.wait_for(1)
        assert metric(server, "forward_model_reloads_total", result="success") == 2
        assert metric(server, "forward_model_last_reload_successful") == 1
        loaded = metric(server, "forward_model_last_reload_success_timestamp_seconds")
        assert abs(loaded - model_of(server).reload.loaded_time.ToNanoseconds() / 1e9) < 5


def test_without_an_interval_only_a_signal_polls(tiny: Bundle) -> None:
    with serving(tiny, *NEVER) as (server, load):
        load.expect(publish(tiny))
        time.sleep(POLLS_SECONDS)
        load.wait_for(1)
        assert set(load.answers) == {1}
        hang_up(server)
        load.wait_for(2)


def test_a_pinned_version_is_reloaded_when_it_changes(tiny: Bundle) -> None:
    with serving(tiny, *FAST, "--model-version", "1") as (server, load):
        newer = publish(tiny)
        time.sleep(POLLS_SECONDS)
        assert set(load.answers) == {1}
        # The newer one's files under the pinned number, in one step of a rename each way.
        beside = tiny.path.parent / ".new"
        shutil.copytree(newer.path, beside)
        changed = write_manifest(beside, newer.manifest.model_copy(update={"version": 1}))
        load.expect(changed)
        tiny.path.rename(tiny.path.parent / ".old")
        beside.rename(tiny.path)
        wait_until(lambda: model_of(server).manifest_sha256 == changed.manifest.sha256)
        with ForwardClient(server.address) as client:
            found = client.predict(random_images(3, (3, 5)))
        assert abs(found.logits - oracle(newer)).max() < 1e-5
        assert found.model_version == 1


def test_the_last_version_removed_is_served_on(tiny: Bundle) -> None:
    with serving(tiny, *FAST) as (server, load):
        kept = tiny.path.rename(tiny.path.parent / ".kept")
        wait_for_failure(server, "is gone, and there is no other version")
        time.sleep(POLLS_SECONDS)
        load.wait_for(1)
        assert len(failure_lines(server)) == 1, "said at each look"
        kept.rename(tiny.path)
        wait_until(lambda: not model_of(server).reload.HasField("failure"))
        assert metric(server, "forward_model_last_reload_successful") == 1
        assert metric(server, "forward_model_reloads_total", result="success") == 0


def test_a_served_version_damaged_on_disk_stays(
    tiny: Bundle,
) -> None:
    newest = publish(tiny)
    with serving(newest, *NEVER) as (server, load):
        (newest.path / "model.onnx").write_bytes(b"damaged")
        hang_up(server)
        wait_for_failure(server, "model.onnx: the manifest says")
        load.wait_for(2)
        assert set(load.answers) == {2}


def test_a_corrupted_version_is_loaded_once_repaired(tiny: Bundle) -> None:
    with serving(tiny, *NEVER) as (server, load):
        broken = load.expect(publish(tiny))
        model = broken.path / "model.onnx"
        right = model.read_bytes()
        model.write_bytes(bytes([right[0] ^ 1]) + right[1:])
        for turn in range(1, 4):
            hang_up(server)
            wait_until(lambda turn=turn: failures(server) == turn)  # type: ignore[misc] # mypy cannot infer the type of a lambda with a default
        wait_for_failure(server, "model.onnx: the manifest says")
        assert model_of(server).reload.failure.version == 2
        assert len(failure_lines(server)) == 1, "the same failure was logged again"
        assert set(load.answers) == {1}
        model.write_bytes(right)
        hang_up(server)
        load.wait_for(2)
        assert not model_of(server).reload.HasField("failure")


def test_a_wrong_version_gives_way_to_an_older(
    tiny: Bundle,
) -> None:
    second, third = publish(tiny), publish(tiny)
    # The hashes of 3 are right, its model is that of 2: only the self-check can tell.
    for name in ("model.onnx", "trace.onnx"):
        shutil.copy(second.path / name, third.path)
    files = {
        file.name: third.path.joinpath(file.name).read_bytes() for file in third.manifest.files
    }
    wrong = write_bundle(third.path, third.manifest, files)
    hidden = [
        each.path.rename(each.path.parent / f".{n}") for n, each in enumerate((second, wrong))
    ]
    with serving(tiny, *FAST) as (server, load):
        hidden[1].rename(wrong.path)
        wait_for_failure(server, "does not compute this model: stage 'linear1'")
        load.wait_for(1)
        hidden[0].rename(second.path)
        load.expect(second)
        load.wait_for(2)
        assert model_of(server).reload.failure.version == 3, "it still should be served"
        shutil.rmtree(wrong.path)
        wait_until(lambda: not model_of(server).reload.HasField("failure"))


def test_a_version_being_written_is_no_failure(tiny: Bundle, tmp_path: Path) -> None:
    whole = publish(tiny)
    source = whole.path.rename(tmp_path / "source")
    with serving(tiny, *FAST) as (server, load):
        load.expect(Bundle(source, whole.manifest))
        whole.path.mkdir()
        # The manifest first: from there on only the files can tell.
        for name in [MANIFEST_NAME, *(file.name for file in whole.manifest.files)]:
            data = (source / name).read_bytes()
            for part in (data[: len(data) // 2], data):
                assert set(load.answers) == {1}
                (whole.path / name).write_bytes(part)
                time.sleep(0.2)
        load.wait_for(2)
        assert failures(server) == 0
        events = [entry["event"] for entry in server.log()]
        assert events.count("version is not complete yet") == 1
        assert "reload failed" not in events


def test_a_version_left_incomplete_becomes_a_failure(tiny: Bundle) -> None:
    with serving(tiny, *FAST) as (server, load):
        half = publish(tiny)
        # One rename: it is never seen whole.
        staged = half.path.rename(half.path.parent / ".staged")
        (staged / "trace.onnx").unlink()
        staged.rename(half.path)
        assert failures(server) == 0
        wait_for_failure(server, "trace.onnx: can't be read: No such file")
        time.sleep(POLLS_SECONDS)
        assert len(failure_lines(server)) == 1
        assert set(load.answers) == {1}


def test_a_full_disk_publishes_nothing(
    tiny: Bundle,
) -> None:
    """The limit of a file's size stands in for the disk: the write ends in the middle."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(tiny, *FAST) as (server, load):
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
                publish(tiny)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert versions(models_dir_of(tiny), "tiny") == [1]
        assert [path.name for path in tiny.path.parent.iterdir()] == ["1"], "something was left"
        time.sleep(POLLS_SECONDS)
        load.wait_for(1)
        assert failures(server) == 0
        assert set(load.answers) == {1}


def test_a_version_of_another_shape_is_served(tiny: Bundle) -> None:
    folder = ("--models-dir", str(models_dir_of(tiny)), "--model", "tiny", *NEVER)
    with start_server(*folder) as server, ForwardClient(server.address) as client:
        other = publish_random_bundle(models_dir_of(tiny), "tiny", (4, 4), ("a", "b", "c"))
        hang_up(server)
        wait_until(lambda: client.model().version == 2)
        model = client.model()
        assert model.manifest_sha256 == other.manifest.sha256
        assert model.reload.failure is None
        assert abs(model.reload.loaded_time - datetime.now(UTC)) < timedelta(minutes=5)
        images = random_images(5, (4, 4))
        answer = client.predict(images)
        assert abs(answer.logits - oracle(other, images)).max() < 1e-5
        assert client.model().labels == ("a", "b", "c")


def test_a_version_with_larger_requests_needs_a_restart(
    tiny: Bundle,
) -> None:
    with serving(tiny, *NEVER) as (server, load):
        publish_random_bundle(models_dir_of(tiny), "tiny", (40, 40), TINY_LABELS)
        hang_up(server)
        wait_for_failure(server, "restart the server to serve it")
        assert "shape [40, 40]" in model_of(server).reload.failure.message
        load.wait_for(1)


def test_a_server_starts_with_the_newest_loadable_version(
    tiny: Bundle,
) -> None:
    broken = publish(tiny)
    (broken.path / "model.onnx").unlink()
    with serving(tiny, *NEVER) as (server, _):
        failure = model_of(server).reload.failure
        assert failure.version == 2
        assert "model.onnx: can't be read" in failure.message
        with ForwardClient(server.address) as client:
            model = client.model()
        assert model.reload.failure is not None
        assert (model.reload.failure.version, model.reload.failure.message) == (2, failure.message)
        assert model.reload.failure.time == failure.time.ToDatetime(UTC)
        assert metric(server, "forward_model_last_reload_successful") == 0
        assert len(failure_lines(server)) == 1


def piped_version(bundle: Bundle) -> Path:
    """Make version 2 with a manifest that is a pipe: who reads it waits for a writer."""
    pipe = bundle.path.parent / "2" / MANIFEST_NAME
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    return pipe


def test_a_signal_during_a_look_makes_one_more(tiny: Bundle) -> None:
    with serving(tiny, *NEVER) as (server, load):
        pipe = piped_version(tiny)
        hang_up(server)
        writer = wait_for_reader(pipe)
        load.expect(publish(tiny))  # what the look has listed is older
        hang_up(server)
        load.wait_for(1)
        assert set(load.answers) == {1}
        os.close(writer)
        load.wait_for(3)


def test_a_drain_does_not_wait_for_polls(tiny: Bundle) -> None:
    folder = ("--models-dir", str(models_dir_of(tiny)), "--model", "tiny", *NEVER)
    with start_server(*folder) as server:
        pipe = piped_version(tiny)
        hang_up(server)
        writer = wait_for_reader(pipe)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 5
        assert server.log()[-1]["event"] == "stopped"
        os.close(writer)


def wait_for_reader(pipe: Path) -> int:
    """Return the pipe, opened to write, when somebody waits to read it."""
    opened = [-1]

    def is_open() -> bool:
        try:
            opened[0] = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads
            return False
        return True

    wait_until(is_open)
    return opened[0]


def test_sighup_does_not_end_a_starting_server(tmp_path: Path) -> None:
    log_path = tmp_path / "log"
    ports = ("--grpc-port", "0", "--metrics-port", "0", "--log-format", "json")
    with (
        log_path.open("wb") as log,
        subprocess.Popen(server_command(ports), cwd=REPOSITORY, stderr=log) as process,
    ):
        try:
            wait_until(lambda: ignores_hangup(process.pid))
            deadline = time.monotonic() + 60
            while b'"ready"' not in log_path.read_bytes() and time.monotonic() < deadline:
                process.send_signal(signal.SIGHUP)
                time.sleep(0.005)
                assert process.poll() is None, "a SIGHUP ended it"
            assert b'"ready"' in log_path.read_bytes()
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_closed_terminal_ends_its_server(tiny: Bundle, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    log_path = tmp_path / "log"
    arguments = ("--models-dir", str(models_dir_of(tiny)), "--model", "tiny", *NEVER)
    ports = ("--grpc-port", "0", "--metrics-port", "0", "--log-format", "json")

    def take_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            server_command([*ports, *arguments]),
            cwd=REPOSITORY,
            stderr=log,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 (no thread runs here yet)
        ) as process,
    ):
        try:
            os.close(theirs)
            wait_until(lambda: b'"ready"' in log_path.read_bytes(), 60)
            publish(tiny)
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: b'"reloaded"' in log_path.read_bytes())
            os.close(ours)  # as when the window of the terminal is closed
            assert process.wait(10) == -signal.SIGHUP
        finally:
            process.kill()


def ignores_hangup(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigIgn:"))
    return bool(int(mask, 16) & 1 << (signal.SIGHUP - 1))
