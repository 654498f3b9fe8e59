"""The command `python -m deploy.ray serve`."""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import structlog

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported

import ray
from ray import serve
from ray.exceptions import RayError

from deploy.ray.serve.application import deploy, failure_of, proxies_are_healthy, start_proxies
from deploy.ray.serve.config import PROGRAM, RayServeSettings
from deploy.ray.serve.discovery import close_registry, open_registry
from export.settings import read_settings
from server.errors import StartError
from server.lifecycle.signals import stop_signal
from server.observability.logging import configure_logs

POLL_SECONDS = 0.2
PROXIES_SECONDS = 60.0

log = structlog.get_logger()


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal, or return at once if detached; return the exit status."""
    settings = read_settings(RayServeSettings, arguments)
    configure_logs(settings.log_level, settings.log_format)
    logging.getLogger("ray.serve").setLevel(max(logging.WARNING, logging.root.level))
    try:
        _connect(settings)
        try:
            return asyncio.run(_serve(settings))
        finally:
            ray.shutdown()
    except (RayError, RuntimeError, ConnectionError, ValueError, StartError) as error:
        print(f"{PROGRAM}: can't start: {error}", file=sys.stderr)
        return 1


def _connect(settings: RayServeSettings) -> None:
    # The dashboard is a web server of Ray's own; a cluster that has one keeps it.
    own: dict[str, Any] = {"include_dashboard": False} if settings.ray_address == "local" else {}
    ray.init(
        address=settings.ray_address,
        logging_level=logging.getLevelNamesMapping()[settings.log_level.upper()],
        namespace="forward",
        **own,
    )


async def _serve(settings: RayServeSettings) -> int:
    stop = stop_signal()
    host = settings.host_of_metrics
    registry = open_registry(settings.ray_name, host, settings.ray_discovery_port)
    discovery_port = await registry.listen.remote()
    await asyncio.to_thread(start_proxies, settings)
    try:
        await asyncio.to_thread(deploy, settings)
    except RuntimeError as error:
        reason = await asyncio.to_thread(failure_of, settings.ray_name)
        raise StartError(f"{error} {reason}".strip()) from error
    await _wait_for_proxies()
    log.info(
        "ready",
        model=settings.model,
        version=settings.model_version,
        application=settings.ray_name,
        replicas=settings.ray_min_replicas,
        max_replicas=settings.max_replicas,
        grpc_port=settings.grpc_port,
        http_port=settings.http_port,
        discovery=f"http://{host}:{discovery_port}/",
    )
    if settings.ray_detach:
        return 0
    log.info("draining", signal=await stop, timeout_seconds=settings.drain_timeout)
    await asyncio.to_thread(_remove, settings.ray_name)
    log.info("stopped")
    return 0


async def _wait_for_proxies() -> None:
    """Wait until all proxies can be used, but not for ever: a node may be lost meanwhile."""
    for _ in range(round(PROXIES_SECONDS / POLL_SECONDS)):
        if await asyncio.to_thread(proxies_are_healthy):
            return
        await asyncio.sleep(POLL_SECONDS)
    log.warning("not every proxy can be used", seconds=PROXIES_SECONDS)


def _remove(application: str) -> None:
    """Remove the application when its calls have ended, and Serve if it has no other."""
    serve.delete(application)
    if not serve.status().applications:
        serve.shutdown()  # type: ignore[no-untyped-call] # Ray gives it no types
    close_registry(application)
