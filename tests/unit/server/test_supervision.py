"""What goes on in the background is started again when it fails, and not too often."""

import asyncio
import time
import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import Bundle
from server.observability import metrics_http, supervision
from server.observability.metrics import ServerMetrics
from server.observability.metrics_http import serve_metrics
from server.observability.supervision import MAX_PAUSE_SECONDS, Restarts
from server.repository.current import ActiveModel
from server.repository.poller import RepositoryPoller
from server.repository.versions import ModelRepository, PollResult
from tests.support.servers import wait_until
from tests.unit.server.test_repository import current_of, publish


def sample(metrics: ServerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=30))
def test_pauses_grow_to_a_bound_and_reset(lasted: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = 1000.0
        patch.setattr(time, "monotonic", lambda: now)
        restarts, before = Restarts(), 0.0
        for seconds in lasted:
            now += seconds
            pause = restarts.pause_seconds()
            if seconds > MAX_PAUSE_SECONDS or not before:
                assert pause == 1
            else:
                assert pause == min(2 * before, MAX_PAUSE_SECONDS)
            now, before = now + pause, pause


def test_a_failed_reload_task_is_counted_and_restarted(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_SECONDS", 0.2)
    current, loader, metrics = current_of(tiny)
    seen: list[float | None] = []

    class Failing(ModelRepository[ActiveModel]):
        def poll(self, served: object, *, force: bool) -> PollResult[ActiveModel]:
            if len(seen) < 2:
                seen.append(sample(metrics, "forward_model_last_reload_successful"))
                raise RuntimeError("nobody foresaw it")
            return super().poll(served, force=force)  # type: ignore[arg-type] # a manifest

    async def run() -> None:
        metrics.model.record_poll(loaded=False, failed=0, is_well=True)
        repository = Failing(tiny.path.parent.parent, "tiny", None, loader.load)
        reload_requested = asyncio.Event()
        poller = RepositoryPoller(current, repository, metrics, 0, reload_requested)
        running = asyncio.create_task(poller.keep_running())
        reload_requested.set()
        await until(lambda: current.failure is not None)
        assert current.failure is not None
        assert "the server's log has the cause" in current.failure.text
        await until(lambda: current.failure is None)
        publish(tiny)
        reload_requested.set()
        await until(lambda: current.active.model.manifest.version == 2)
        running.cancel()
        poller.close()

    asyncio.run(run())
    assert seen == [1, 0], "it stayed at 1 after the failure"
    assert sample(metrics, "forward_model_last_reload_successful") == 1
    assert sample(metrics, "forward_background_failures_total", task="reload") == 2
    assert sample(metrics, "forward_model_reloads_total", result="failure") == 2


async def until(condition: object) -> None:
    assert callable(condition)
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true in time")


def test_a_failure_to_retire_is_counted(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    current, loader, metrics = current_of(tiny)
    old = current.active.instance

    def fail() -> None:
        raise RuntimeError("it does not close")

    async def run() -> None:
        repository = ModelRepository(tiny.path.parent.parent, "tiny", None, loader.load)
        reload_requested = asyncio.Event()
        poller = RepositoryPoller(current, repository, metrics, 0, reload_requested)
        running = asyncio.create_task(poller.keep_running())
        with monkeypatch.context() as patch:
            patch.setattr(old, "close", fail)
            publish(tiny)
            reload_requested.set()
            await until(
                lambda: sample(metrics, "forward_background_failures_total", task="retire") == 1
            )
        running.cancel()
        poller.close()

    asyncio.run(run())
    old.close()


def test_the_metrics_port_recovers_from_a_failed_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_SECONDS", 0.05)
    failures = [RuntimeError("nobody foresaw it")]
    ports: list[int] = []  # of this test alone: those of others may still be served

    def fail_once(server: metrics_http._Server) -> None:
        if failures and server.server_port in ports:
            raise failures.pop()

    monkeypatch.setattr(metrics_http._Server, "service_actions", fail_once, raising=False)
    metrics = ServerMetrics()
    port = serve_metrics(metrics, "127.0.0.1", 0)
    ports.append(port)
    wait_until(lambda: sample(metrics, "forward_background_failures_total", task="metrics") == 1)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        assert b'forward_background_failures_total{task="metrics"} 1.0' in response.read()
