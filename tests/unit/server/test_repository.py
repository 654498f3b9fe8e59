"""Which version should be served, what is remembered of failures, and how the old one goes."""

import asyncio
import gc
import shutil
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from client.connection import tensor_of
from export.bundle import Bundle, open_bundle
from export.errors import BundleError, ParityError
from export.settings import read_settings
from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.service import ForwardService
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
    Look,
    ModelRepository,
    preferred,
)
from tests.support.bundles import publish_random_bundle, random_images
from tests.support.servers import BareCall

VERSIONS = st.sets(st.integers(1, 9))


@given(VERSIONS, st.none() | st.integers(1, 9), st.none() | st.integers(1, 9))
def test_the_versions_to_try_are_the_newest_first_and_none_below_the_served_one(
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


class Finder:
    """A finder over a real folder, whose loads are counted and may be made to fail."""

    def __init__(self, served: Bundle, pinned: int | None = None) -> None:
        self.clock = Clock()
        self.served = served
        self.loads: list[int] = []
        self.failure: Exception | None = None
        self._finder = ModelRepository(
            served.path.parent.parent, served.manifest.name, pinned, self._load, self.clock
        )

    def look(self, *, asked: bool = False) -> Look[Bundle]:
        return self._finder.look(self.served.manifest, asked=asked)

    def _load(self, bundle: Bundle) -> Bundle:
        self.loads.append(bundle.manifest.version)
        if self.failure is not None:
            raise self.failure
        bundle.verify_files()
        return bundle


def publish(bundle: Bundle) -> Bundle:
    return publish_random_bundle(bundle.path.parent.parent, bundle.manifest.name)


def test_nothing_is_loaded_while_the_served_version_is_the_newest(tiny: Bundle) -> None:
    finder = Finder(tiny)
    assert finder.look() == finder.look(asked=True) == Look(None, None, 0)
    assert finder.loads == []


@pytest.mark.parametrize("error", [ParityError("wrong"), MemoryError("short of memory")])
def test_a_failure_is_tried_again_after_a_while_when_it_changes_and_when_asked(
    tiny: Bundle, error: Exception
) -> None:
    finder, newer = Finder(tiny), publish(tiny)
    finder.failure = error
    look = finder.look()
    assert look.failure is not None
    assert (look.failure.version, look.failed) == (2, 1)
    assert str(error) in look.failure.text
    finder.clock.now += RETRY_SECONDS - 1
    assert finder.look() == Look(None, look.failure, 0), "nothing changed, and it is early"
    assert finder.look(asked=True).failed == 1
    (newer.path / "more").write_bytes(b"")
    assert finder.look().failed == 1, "something changed"
    finder.clock.now += RETRY_SECONDS + 1
    assert finder.look().failed == 1, "it is time"
    finder.failure = None
    found = finder.look(asked=True)
    assert found.loaded is not None
    assert found.loaded.manifest == newer.manifest
    assert found.failure is None


@pytest.mark.parametrize("cut", ["model.onnx", "manifest.json"])
def test_a_half_written_version_is_a_failure_only_if_it_rests(tiny: Bundle, cut: str) -> None:
    finder, newer = Finder(tiny), publish(tiny)
    data = (newer.path / cut).read_bytes()
    for part in range(1, 5):  # it grows for longer than it may rest
        (newer.path / cut).write_bytes(data[: 100 * part])
        assert finder.look() == Look(None, None, 0)
        finder.clock.now += SETTLE_SECONDS - 1
        assert finder.look() == Look(None, None, 0)
    finder.clock.now += 2
    look = finder.look()
    assert look.failed == 1
    assert look.failure is not None
    assert cut in look.failure.text
    (newer.path / cut).write_bytes(data)
    found = finder.look()
    assert found.loaded is not None
    assert found.failure is None


def test_a_half_written_version_is_a_failure_at_once_for_who_asks(tiny: Bundle) -> None:
    finder, newer = Finder(tiny), publish(tiny)
    (newer.path / "model.onnx").unlink()
    assert finder.look(asked=True).failed == 1


def test_a_folder_that_can_not_be_read_is_a_failure_of_what_is_served(tiny: Bundle) -> None:
    finder = Finder(tiny)
    tiny.path.parent.rename(tiny.path.parent.parent / "away")
    look = finder.look()
    assert look.failure is not None
    assert look.failure.version == 1
    assert "is gone, and there is no other version" in look.failure.text


def test_a_folder_that_is_no_version_is_ignored_and_said_once(tiny: Bundle) -> None:
    finder = Finder(tiny)
    names = [str(2**63), "007", "٣"]
    with structlog.testing.capture_logs() as log:
        for name in names:
            (tiny.path.parent / name).mkdir()
            for asked in (False, True):
                assert finder.look(asked=asked) == Look(None, None, 0)
        (tiny.path.parent / "007").rmdir()
        finder.look()
        (tiny.path.parent / "007").mkdir()
        finder.look()
    assert [entry["folder"] for entry in log] == [ascii(name) for name in [*names, "007"]]
    assert all("from 1 to 9223372036854775807" in entry["expected"] for entry in log)


def test_with_no_version_that_can_be_loaded_the_start_tells_of_the_newest(tiny: Bundle) -> None:
    newer = publish(tiny)
    for bundle in (tiny, newer):
        (bundle.path / "model.onnx").unlink()
    finder = ModelRepository(tiny.path.parent.parent, "tiny", None, Bundle.verify_files)
    with pytest.raises(BundleError, match=r"tiny/2/model\.onnx"):
        finder.first()


def host_of(bundle: Bundle) -> tuple[CurrentModel, ModelLoader, ServerMetrics]:
    settings = read_settings(ServerSettings, ["--device", "cpu", "--max-batch-images", "8"])
    metrics = ServerMetrics()
    loader = ModelLoader(settings, RequestLimits(8, 1 << 20), AdmissionControl(64), metrics)
    return CurrentModel(loader.load(bundle)), loader, metrics


def reloader_of(
    bundle: Bundle,
    host: CurrentModel,
    load: Callable[[Bundle], ActiveModel],
    metrics: ServerMetrics,
) -> tuple[RepositoryPoller, asyncio.Event]:
    finder = ModelRepository(bundle.path.parent.parent, "tiny", None, load)
    asked = asyncio.Event()
    return RepositoryPoller(host, finder, metrics, 0, asked), asked


def test_the_old_version_is_freed_when_its_last_answer_has_left_without_the_garbage_collector(
    tiny: Bundle,
) -> None:
    host, loader, metrics = host_of(tiny)
    newer = publish(tiny)
    old = weakref.ref(host.active.model.runner)
    service = ForwardService(host, RequestLimits(8, 1 << 20))
    images = tensor_of(random_images(2, (3, 5)))

    async def swap() -> None:
        reloader, asked = reloader_of(tiny, host, loader.load, metrics)
        running = asyncio.create_task(reloader.run())
        call, traced = BareCall(), BareCall()
        before = await service.predict(pb.PredictRequest(images=images), call)
        await service.trace(pb.TraceRequest(images=images), traced)
        traced.leave()
        asked.set()
        while host.active.model.manifest.version != 2:  # noqa: ASYNC110 (nothing tells it)
            await asyncio.sleep(0.01)
        after_call = BareCall()
        after = await service.predict(pb.PredictRequest(images=images), after_call)
        assert (before.model.version, after.model.version) == (1, 2)
        assert before.logits != after.logits
        await asyncio.sleep(0.3)
        assert old() is not None, "its answer has not left yet"
        call.leave()
        after_call.leave()
        for _ in range(500):
            if old() is None:
                break
            await asyncio.sleep(0.01)
        running.cancel()
        reloader.close()

    gc.collect()
    gc.disable()
    gc.freeze()  # as a server does: the collector will never look at the first version
    try:
        asyncio.run(swap())
        assert old() is None
    finally:
        gc.unfreeze()
        gc.enable()
    assert newer.manifest.version == host.active.identity.version


def test_jumps_of_the_wall_clock_change_no_look(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    host, _, metrics = host_of(tiny)

    class Counting(ModelRepository[ActiveModel]):
        def look(self, served: object, *, asked: bool) -> Look[ActiveModel]:  # noqa: ARG002 (the interface)
            looks.append(asked)
            return Look(None, None, 0)

    async def run() -> None:
        finder = Counting(Path(), "tiny", None, lambda _: host.active)
        reloader = RepositoryPoller(host, finder, metrics, 0.2, asyncio.Event())
        running = asyncio.create_task(reloader.run())
        await asyncio.sleep(1.1)
        running.cancel()
        reloader.close()

    jumps = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    asyncio.run(run())
    assert 1 <= len(looks) <= 5
    assert not any(looks)


def test_a_version_that_was_swapped_by_rename_is_seen_though_its_number_is_the_same(
    tiny: Bundle, tmp_path: Path
) -> None:
    finder, newer = Finder(tiny, pinned=1), publish(tiny)
    shutil.rmtree(tiny.path)
    shutil.copytree(newer.path, tmp_path / "copy")
    (tmp_path / "copy").rename(tiny.path)
    look = finder.look(asked=True)
    assert look.failure is not None
    assert "is of 'tiny' version 2, but lies in the folder of 'tiny' version 1" in look.failure.text
    assert open_bundle(tiny.path).manifest == newer.manifest
