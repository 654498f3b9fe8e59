"""Each setting of the application on Ray does something, and wrong ones stop the start."""

import os
import subprocess
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.ray.serve.config import OF_OWN_PORTS, RayServeSettings
from export.settings import read_settings
from tests.support.bundles import REPOSITORY

# Ray 2.60 declares fields of its own settings so, and says so when it is imported.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Using extra keyword arguments on `Field`:pydantic.warnings.PydanticDeprecatedSince20"
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.ray", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def settings(*arguments: str) -> RayServeSettings:
    return read_settings(RayServeSettings, arguments)


def options(*arguments: str) -> Mapping[str, Any]:
    from deploy.ray.serve.application import deployment_options  # noqa: PLC0415 (Ray is slow)

    return deployment_options(settings(*arguments))


def test_an_unknown_setting_stops_the_start_by_name() -> None:
    done = run("serve", FORWARD_RAY_REPLICAS="3")
    assert done.returncode == 2
    assert "FORWARD_RAY_REPLICAS is not a setting" in done.stderr


def test_an_unknown_command_names_those_there_are() -> None:
    done = run("deploy")
    assert done.returncode == 2
    assert "serve" in done.stderr
    assert "score" in done.stderr


def test_settings_of_ray_are_none_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from server.config import ServerSettings  # noqa: PLC0415 (beside the one that is tested)

    monkeypatch.setenv("FORWARD_RAY_CPUS", "2")
    assert ServerSettings.unknown_variables() == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--transport", "native"), "Ray's proxies carry gRPC"),
        (("--http-port", "off"), "always listen for HTTP"),
        (("--host", "unix:/tmp/socket"), "listen on no sockets"),
        (("--ray-detach",), "needs the --ray-address"),
        (("--ray-min-replicas", "3", "--ray-max-replicas", "2"), "is below --ray-min-replicas 3"),
        (("--max-connection-age", "60"), "--max-connection-age: Ray's proxies have no such"),
        (("--tls-cert", "a", "--tls-key", "b"), "--tls-cert: Ray's proxies have no such"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_ray_cannot_do_stops_the_start(
    arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings(*arguments)
    assert text in capsys.readouterr().err


def test_the_refused_settings_are_settings() -> None:
    assert set(OF_OWN_PORTS) <= set(RayServeSettings.model_fields)


def test_replicas_stay_as_many_without_a_maximum() -> None:
    found = options("--ray-min-replicas", "3", "--ray-cpus", "2", "--ray-gpus", "0.5")
    assert found["num_replicas"] == 3
    assert "autoscaling_config" not in found
    assert found["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0.5}


def test_replicas_follow_the_queue_between_their_bounds() -> None:
    flags = ("--ray-min-replicas", "2", "--ray-max-replicas", "9", "--ray-upscale-delay", "3")
    more = ("--ray-downscale-delay", "44", "--ray-target-queue-images", "100")
    found = options(*flags, *more)["autoscaling_config"]
    assert (found.min_replicas, found.max_replicas) == (2, 9)
    assert (found.upscale_delay_s, found.downscale_delay_s) == (3, 44)
    assert found.target_ongoing_requests == 100


def test_the_drain_has_the_time_of_the_setting() -> None:
    assert options("--drain-timeout", "7")["graceful_shutdown_timeout_s"] == 7


@pytest.mark.parametrize(
    ("chosen", "location"), [("every-node", "EveryNode"), ("head", "HeadOnly")]
)
def test_proxies_are_where_the_setting_says(chosen: str, location: str) -> None:
    from deploy.ray.serve.application import proxy_options  # noqa: PLC0415 (Ray is slow)

    flags = ("--grpc-port", "1234", "--http-port", "1235", "--host", "127.0.0.1")
    found = proxy_options(settings("--ray-proxies", chosen, *flags))
    assert found["proxy_location"] == location
    assert found["grpc_options"].port == 1234
    assert (found["http_options"].host, found["http_options"].port) == ("127.0.0.1", 1235)


@pytest.mark.parametrize(
    ("queues", "wanted"),
    [({"a": 0.0}, 1), ({"a": 100.0}, 1), ({"a": 101.0}, 2), ({"a": 150.0, "b": 250.0}, 4), ({}, 5)],
)
def test_as_many_replicas_are_wanted_as_the_queues_fill(
    queues: dict[str, float], wanted: int
) -> None:
    from deploy.ray.serve.scaling import QUEUE_IMAGES, wanted_replicas  # noqa: PLC0415 (as above)

    context = SimpleNamespace(
        aggregated_metrics={QUEUE_IMAGES: queues},
        config=SimpleNamespace(target_ongoing_requests=100.0),
        target_num_replicas=5,
    )
    assert wanted_replicas(context)[0] == wanted


def test_without_the_extra_one_line_names_it() -> None:
    script = (
        "import sys; sys.modules['ray'] = None; "
        "from deploy.ray.__main__ import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "python -m deploy.ray: needs 'ray'; install forward-server[ray]\n"
