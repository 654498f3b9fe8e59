"""Which version should be served, what is remembered of failures, and how the old one goes."""

import asyncio
import gc
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import Bundle, open_bundle
from export.errors import BundleError, ParityError
from export.settings import read_settings
from forward.v1 import forward_pb2 as pb
from forward_client.messages import tensor_of
from server.api.forward_v1.service import ForwardService
from server.api.forward_v1.zero_copy import ImageRequest
from server.config import ServerSettings
from server.engine.admission import AdmissionControl
from server.limits import RequestLimits
from server.observability.metrics import ServerMetrics
from server.repository.current import ActiveModel, CurrentModel
from server.repository.loader import ModelLoader
from server.repository.poller import RepositoryPoller
from server.repository.versions import (
    RETRY_SECONDS,
    SETTLE_SECONDS,
    ModelRepository,
    PollResult,
    VersionStatus,
    preferred,
)
from tests.support.bundles import MODELS_DIR, publish_random_bundle, random_images
from tests.support.servers import BareContext

MANIFEST = open_bundle(MODELS_DIR / "mnist" / "1").manifest
VERSIONS = st.sets(st.integers(1, 9))


@given(VERSIONS, st.none() | st.integers(1, 9), st.none() | st.integers(1, 9))
def test_versions_are_tried_newest_first_down_to_served(
    there: set[int], served: int | None, pinned: int | None
) -> None:
    wanted = preferred(list(there), served, pinned)
    assert wanted == sorted(wanted, reverse=True)
    allowed = {version for version in there if pinned is None or version == pinned}
    if served in allowed:
        assert set(wanted) == {version for version in allowed if version >= served}
    else:
        assert set(wanted) == allowed


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class WatchedRepository:
    """A repository over a real folder, whose loads are counted and may be made to fail."""

    def __init__(self, served: Bundle, pinned: int | None = None) -> None:
        self.clock = Clock()
        self.served = served
        self.loads: list[int] = []
        self.failure: Exception | None = None
        self._repository = ModelRepository(
            served.path.parent.parent, served.manifest.name, pinned, self._load, self.clock
        )

    def poll(self, *, force: bool = False) -> PollResult[Bundle]:
        return self._repository.poll(self.served.manifest, force=force)

    def statuses(self) -> list[VersionStatus]:
        return self._repository.statuses(self.served.manifest.version)

    def _load(self, bundle: Bundle) -> Bundle:
        self.loads.append(bundle.manifest.version)
        if self.failure is not None:
            raise self.failure
        bundle.verify_files()
        return bundle


def publish(bundle: Bundle) -> Bundle:
    return publish_random_bundle(bundle.path.parent.parent, bundle.manifest.name)


def test_nothing_is_loaded_while_the_newest_is_served(tiny: Bundle) -> None:
    repository = WatchedRepository(tiny)
    assert repository.poll() == repository.poll(force=True) == PollResult(None, None, 0)
    assert repository.loads == []


@pytest.mark.parametrize("error", [ParityError("wrong"), MemoryError("short of memory")])
def test_a_failure_is_tried_again_later(tiny: Bundle, error: Exception) -> None:
    repository, newer = WatchedRepository(tiny), publish(tiny)
    repository.failure = error
    result = repository.poll()
    assert result.failure is not None
    assert (result.failure.version, result.failed) == (2, 1)
    assert str(error) in result.failure.text
    repository.clock.now += RETRY_SECONDS - 1
    assert repository.poll() == PollResult(None, result.failure, 0), (
        "nothing changed, and it is early"
    )
    assert repository.poll(force=True).failed == 1
    (newer.path / "more").write_bytes(b"")
    assert repository.poll().failed == 1, "something changed"
    repository.clock.now += RETRY_SECONDS + 1
    assert repository.poll().failed == 1, "it is time"
    repository.failure = None
    result = repository.poll(force=True)
    assert result.loaded is not None
    assert result.loaded.manifest == newer.manifest
    assert result.failure is None


@pytest.mark.parametrize("cut", ["model.onnx", "manifest.json"])
def test_an_incomplete_version_fails_only_when_unchanged(tiny: Bundle, cut: str) -> None:
    repository, newer = WatchedRepository(tiny), publish(tiny)
    data = (newer.path / cut).read_bytes()
    for part in range(1, 5):  # it grows for longer than it may rest
        (newer.path / cut).write_bytes(data[: 100 * part])
        assert repository.poll() == PollResult(None, None, 0)
        repository.clock.now += SETTLE_SECONDS - 1
        assert repository.poll() == PollResult(None, None, 0)
    repository.clock.now += 2
    result = repository.poll()
    assert result.failed == 1
    assert result.failure is not None
    assert cut in result.failure.text
    (newer.path / cut).write_bytes(data)
    result = repository.poll()
    assert result.loaded is not None
    assert result.failure is None


def test_an_incomplete_version_fails_a_requested_reload(tiny: Bundle) -> None:
    repository, newer = WatchedRepository(tiny), publish(tiny)
    (newer.path / "model.onnx").unlink()
    assert repository.poll(force=True).failed == 1


def test_versions_have_the_reason_why_they_are_not_served(tiny: Bundle) -> None:
    broken, served, incomplete = publish(tiny), publish(tiny), publish(tiny)
    repository = WatchedRepository(served)
    (incomplete.path / "model.onnx").write_bytes(b"")
    repository.poll()
    newest, ready, *older = repository.statuses()
    assert (newest.version, newest.state) == (4, "UNAVAILABLE")
    assert newest.reason.startswith("it is not complete yet: ")
    assert ready == VersionStatus(3, "READY", "")
    text = "version 3, which is newer, is served"
    assert older == [VersionStatus(version, "UNAVAILABLE", text) for version in (2, 1)]
    (broken.path / "model.onnx").write_bytes(b"")
    failure = repository.poll(force=True).failure
    assert failure is not None
    assert repository.statuses()[0] == VersionStatus(4, "UNAVAILABLE", failure.text)


def test_a_served_version_is_ready_though_its_folder_is_gone(tiny: Bundle) -> None:
    repository = WatchedRepository(tiny)
    shutil.rmtree(tiny.path)
    failure = repository.poll().failure
    assert failure is not None
    assert repository.statuses() == [VersionStatus(1, "READY", failure.text)]


def test_versions_beside_a_pinned_one_say_so(tiny: Bundle) -> None:
    publish(tiny)
    repository = WatchedRepository(tiny, pinned=1)
    repository.poll()
    text = "version 1 alone is wanted (--model-version)"
    other = VersionStatus(2, "UNAVAILABLE", text)
    assert repository.statuses() == [other, VersionStatus(1, "READY", "")]


def test_a_load_that_hangs_is_told_without_the_disk(tiny: Bundle) -> None:
    newer, loading, let_go = publish(tiny), threading.Event(), threading.Event()

    def load(bundle: Bundle) -> Bundle:
        loading.set()
        assert let_go.wait(60)
        return bundle

    repository = ModelRepository(tiny.path.parent.parent, "tiny", None, load)
    poll = threading.Thread(target=repository.poll, args=(tiny.manifest,), kwargs={"force": True})
    poll.start()
    assert loading.wait(60)
    for bundle in (newer, tiny):
        shutil.rmtree(bundle.path)  # what is told now, nobody can have read
    found = repository.statuses(1)
    let_go.set()
    poll.join()
    assert found == [VersionStatus(2, "LOADING", ""), VersionStatus(1, "READY", "")]
    assert repository.statuses(2)[0] == VersionStatus(2, "READY", "")


@settings(max_examples=30)
@given(VERSIONS, st.integers(1, 9), st.none() | st.integers(1, 9), VERSIONS)
def test_every_version_is_listed_once_and_one_is_ready(
    there: set[int], served: int, pinned: int | None, again: set[int]
) -> None:
    def load(bundle: Bundle) -> Bundle:
        raise ParityError(f"version {bundle.manifest.version} is wrong")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tiny"
        repository = ModelRepository(Path(name), "tiny", pinned, load)
        manifest = MANIFEST.model_copy(update={"name": "tiny", "version": served})
        for versions in (there, again):
            shutil.rmtree(folder, ignore_errors=True)
            for version in versions:
                (folder / str(version)).mkdir(parents=True)
            repository.poll(manifest, force=True)
            found = repository.statuses(served)
            expected = sorted({*versions, served}, reverse=True)
            assert [each.version for each in found] == expected
            assert [each.version for each in found if each.state == "READY"] == [served]
            assert all(each.reason for each in found if each.state != "READY")


def test_an_unreadable_repository_fails_the_served_version(tiny: Bundle) -> None:
    repository = WatchedRepository(tiny)
    tiny.path.parent.rename(tiny.path.parent.parent / "away")
    result = repository.poll()
    assert result.failure is not None
    assert result.failure.version == 1
    assert "is gone, and there is no other version" in result.failure.text


def test_a_folder_without_version_is_logged_once(tiny: Bundle) -> None:
    repository = WatchedRepository(tiny)
    names = [str(2**63), "007", "٣"]
    with structlog.testing.capture_logs() as log:
        for name in names:
            (tiny.path.parent / name).mkdir()
            for force in (False, True):
                assert repository.poll(force=force) == PollResult(None, None, 0)
        (tiny.path.parent / "007").rmdir()
        repository.poll()
        (tiny.path.parent / "007").mkdir()
        repository.poll()
    assert [entry["folder"] for entry in log] == [ascii(name) for name in [*names, "007"]]
    assert all("from 1 to 9223372036854775807" in entry["expected"] for entry in log)


def test_a_failed_start_names_the_newest_version(tiny: Bundle) -> None:
    newer = publish(tiny)
    for bundle in (tiny, newer):
        (bundle.path / "model.onnx").unlink()
    repository = ModelRepository(tiny.path.parent.parent, "tiny", None, Bundle.verify_files)
    with pytest.raises(BundleError, match=r"tiny/2/model\.onnx"):
        repository.first()


def current_of(bundle: Bundle) -> tuple[CurrentModel, ModelLoader, ServerMetrics]:
    chosen = read_settings(ServerSettings, ["--device", "cpu", "--max-batch-images", "8"])
    metrics = ServerMetrics()
    loader = ModelLoader(chosen, RequestLimits(8, 1 << 20), AdmissionControl(64), metrics)
    return CurrentModel(loader.load(bundle)), loader, metrics


def poller_of(
    bundle: Bundle,
    current: CurrentModel,
    load: Callable[[Bundle], ActiveModel],
    metrics: ServerMetrics,
) -> tuple[RepositoryPoller, asyncio.Event]:
    repository = ModelRepository(bundle.path.parent.parent, "tiny", None, load)
    reload_requested = asyncio.Event()
    return RepositoryPoller(current, repository, metrics, 0, reload_requested), reload_requested


def test_an_idle_old_version_needs_no_garbage_collector(
    tiny: Bundle,
) -> None:
    current, loader, metrics = current_of(tiny)
    newer = publish(tiny)
    old = weakref.ref(current.active.model.runner)
    service = ForwardService(current, RequestLimits(8, 1 << 20))
    images = tensor_of(random_images(2, (3, 5)))
    predict = ImageRequest(pb.PredictRequest(images=images), images.data)
    trace = ImageRequest(pb.TraceRequest(images=images), images.data)

    async def replace() -> None:
        poller, reload_requested = poller_of(tiny, current, loader.load, metrics)
        running = asyncio.create_task(poller.run())
        call, traced = BareContext(), BareContext()
        before = await service.predict(predict, call)
        await service.trace(trace, traced)
        traced.end()
        reload_requested.set()
        while current.active.model.manifest.version != 2:  # noqa: ASYNC110 (nothing tells it)
            await asyncio.sleep(0.01)
        after_call = BareContext()
        after = await service.predict(predict, after_call)
        assert (before.model.version, after.model.version) == (1, 2)
        assert before.logits != after.logits
        await asyncio.sleep(0.3)
        assert old() is not None, "its response has not been sent yet"
        call.end()
        after_call.end()
        for _ in range(500):
            if old() is None:
                break
            await asyncio.sleep(0.01)
        running.cancel()
        poller.close()

    gc.collect()
    gc.disable()
    gc.freeze()  # as a server does: the collector will never look at the first version
    try:
        asyncio.run(replace())
        assert old() is None
    finally:
        gc.unfreeze()
        gc.enable()
    assert newer.manifest.version == current.active.identity.version


def test_jumps_of_the_wall_clock_change_no_poll(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls: list[bool] = []
    current, _, metrics = current_of(tiny)

    class Counting(ModelRepository[ActiveModel]):
        def poll(self, served: object, *, force: bool) -> PollResult[ActiveModel]:  # noqa: ARG002 (the interface)
            polls.append(force)
            return PollResult(None, None, 0)

    async def run() -> None:
        repository = Counting(Path(), "tiny", None, lambda _: current.active)
        poller = RepositoryPoller(current, repository, metrics, 0.2, asyncio.Event())
        running = asyncio.create_task(poller.run())
        await asyncio.sleep(1.1)
        running.cancel()
        poller.close()

    jumps = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    asyncio.run(run())
    assert 1 <= len(polls) <= 5
    assert not any(polls)


def test_a_version_replaced_by_rename_is_noticed(tiny: Bundle, tmp_path: Path) -> None:
    repository, newer = WatchedRepository(tiny, pinned=1), publish(tiny)
    shutil.rmtree(tiny.path)
    shutil.copytree(newer.path, tmp_path / "copy")
    (tmp_path / "copy").rename(tiny.path)
    result = repository.poll(force=True)
    assert result.failure is not None
    assert "is of 'tiny' version 2, but is in the folder of 'tiny' version 1" in result.failure.text
    assert open_bundle(tiny.path).manifest == newer.manifest
