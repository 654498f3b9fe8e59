"""Tells Prometheus where the metrics of every replica are: its HTTP service discovery."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.transport.http.server import HttpServer

NAMESPACE = "forward"
REPORT_SECONDS = 2.0
KEPT_SECONDS = 4 * REPORT_SECONDS  # after its last report a replica is gone
MAX_CONNECTIONS = 64

log = structlog.get_logger()


@dataclass(frozen=True)
class Target:
    """A replica that can be scraped.

    Attributes:
        application: its name.
        replica: the id that Ray has given it.
        address: host and port of its metrics.
        version: of the model that it has been started with.
    """

    application: str
    replica: str
    address: str
    version: str


class Registry:
    """Keeps what replicas report, and answers Prometheus.

    Ray runs it as an actor, and starts it again if it fails: then it listens at the next report.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._wanted_port = host, port
        self._seen: dict[Target, float] = {}
        self._server: HttpServer | None = None
        self._port = 0

    async def listen(self) -> int:
        """Answer on the port, if it does not yet; return it, which for 0 is one that was free.

        Raises:
            StartError: the port cannot be bound.
        """
        if self._server is None:
            app = Starlette(routes=[Route("/", self._answer)])
            server = HttpServer(app, MAX_CONNECTIONS)
            self._port = await server.listen(self._host, self._wanted_port)
            self._server = server
        return self._port

    async def report(self, target: Target) -> None:
        """Take note that a replica is there."""
        self._seen[target] = time.monotonic()
        await self.listen()

    async def targets(self) -> list[Target]:
        """Return the replicas that are there."""
        return list(self._current())

    def _current(self) -> Iterator[Target]:
        oldest = time.monotonic() - KEPT_SECONDS
        self._seen = {target: seen for target, seen in self._seen.items() if seen > oldest}
        yield from self._seen

    async def _answer(self, _request: Request) -> Response:
        groups = []
        for target in self._current():
            labels = asdict(target)
            address = labels.pop("address")
            labels.pop("version")  # the metrics themselves say what is served now
            groups.append({"targets": [address], "labels": labels})
        return JSONResponse(groups)


def open_registry(application: str, host: str, port: int) -> Any:  # noqa: ANN401 (an actor of Ray's, which has no types)
    """Return the registry of an application; start it on this node if there is none.

    Ray starts it again if it fails, and keeps it until `close_registry`.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {
        "name": _name(application),
        "namespace": NAMESPACE,
        "get_if_exists": True,
        "lifetime": "detached",
        "num_cpus": 0,
        "max_restarts": -1,
        "scheduling_strategy": here,
    }
    return ray.remote(Registry).options(**options).remote(host, port)


def close_registry(application: str) -> None:
    """Stop the registry of an application, if there is one."""
    try:
        ray.kill(ray.get_actor(_name(application), NAMESPACE))
    except ValueError:
        log.debug("no registry", application=application)


async def report(target: Target) -> None:
    """Tell the registry of a replica; one that is not there will hear it later."""
    try:
        registry = ray.get_actor(_name(target.application), NAMESPACE)
        await registry.report.remote(target)
    except (ValueError, ray.exceptions.RayError) as error:
        log.debug("no registry", reason=str(error))


def _name(application: str) -> str:
    return f"{application}-replicas"
