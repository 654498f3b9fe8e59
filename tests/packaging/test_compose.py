"""docker/compose.yaml: what it mounts, publishes and sets is there, here and in the image."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import ServerSettings
from tests.support.bundles import REPOSITORY

FILE = REPOSITORY / "docker" / "compose.yaml"
DOCKERFILE = (REPOSITORY / "docker" / "Dockerfile").read_text()
PORTS_BESIDE = {"9090", "3000"}  # Prometheus, Grafana


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file, with what it merges."""
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services by name."""
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def mounts(services: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return where each mounted path leads to."""
    listed = [volume for each in services.values() for volume in each.get("volumes", ())]
    return {source: target for source, target, *_ in (volume.split(":") for volume in listed)}


def test_every_mounted_path_is_there(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    for source in mounts(services):
        assert source in compose["volumes"] or (FILE.parent / source).exists(), source


def test_what_is_mounted_lies_where_it_is_looked_for(services: dict[str, dict[str, Any]]) -> None:
    targets = mounts(services)
    (configuration,) = (word for word in services["prometheus"]["command"] if "config.file" in word)
    assert configuration.endswith(f"={targets['../deploy/prometheus/prometheus.yml']}")
    folder = Path(targets["../deploy/prometheus/prometheus.yml"]).parent
    rules = yaml.safe_load((REPOSITORY / "deploy/prometheus/prometheus.yml").read_text())
    for name in rules["rule_files"]:
        assert folder / name == Path(targets["../deploy/prometheus/rules"], Path(name).name)
        assert (REPOSITORY / "deploy/prometheus" / name).exists()
    provider = yaml.safe_load(
        (REPOSITORY / "deploy/grafana/provisioning/dashboards/forward.yml").read_text()
    )
    dashboards = provider["providers"][0]["options"]["path"]
    assert targets["../deploy/grafana/dashboards"] == dashboards
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == dashboards
    assert (REPOSITORY / "deploy/grafana/dashboards" / home.name).exists()


def test_every_port_is_the_images_and_for_this_machine_alone(
    services: dict[str, dict[str, Any]],
) -> None:
    exposed = re.search(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE)
    assert exposed is not None
    published = [port.split(":") for port in services["forward"]["ports"]]
    assert all(host == "127.0.0.1" and own == there for host, own, there in published)
    assert {own for _, own, _ in published} == {*exposed[1].split()} | PORTS_BESIDE
    assert not [name for name, each in services.items() if "ports" in each and name != "forward"]


def test_every_address_of_a_neighbour_is_what_that_one_listens_on(
    services: dict[str, dict[str, Any]],
) -> None:
    """They share a network: all are localhost, as the files of deploy/ have it."""
    assert all(
        each["network_mode"] == "service:forward"
        for name, each in services.items()
        if name != "forward"
    )
    scraped = yaml.safe_load((REPOSITORY / "deploy/prometheus/prometheus.yml").read_text())
    assert scraped["scrape_configs"][0]["static_configs"][0]["targets"] == ["localhost:8002"]
    source = yaml.safe_load(
        (REPOSITORY / "deploy/grafana/provisioning/datasources/forward.yml").read_text()
    )
    assert source["datasources"][0]["url"] == "http://localhost:9090"
    collector = yaml.safe_load((REPOSITORY / "docker/collector.yaml").read_text())
    receiver = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    sent = services["forward"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert sent.rpartition(":")[2] == receiver.rpartition(":")[2] == "4317"


def test_every_variable_of_the_server_is_a_setting(services: dict[str, dict[str, Any]]) -> None:
    known = {ServerSettings.variable(field) for field in ServerSettings.model_fields}
    variables = services["forward"]["environment"]
    assert {name for name in variables if name.startswith("FORWARD_")} <= known
    timeout = float(variables["FORWARD_DRAIN_TIMEOUT"])
    assert timeout < float(services["forward"]["stop_grace_period"].removesuffix("s"))


def test_every_service_is_without_rights_and_watched(services: dict[str, dict[str, Any]]) -> None:
    for name, each in services.items():
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]
        if name != "forward":
            assert each["depends_on"]["forward"]["condition"] == "service_healthy"
    # The collector's image has no program but itself.
    assert [name for name, each in services.items() if "healthcheck" not in each] == ["collector"]


def test_the_health_check_and_the_target_are_the_images(
    services: dict[str, dict[str, Any]],
) -> None:
    (checked,) = re.findall(r'^HEALTHCHECK .* CMD \["(.+)"\]$', DOCKERFILE, re.MULTILINE)
    assert services["forward"]["healthcheck"]["test"] == ["CMD", checked]
    build = services["forward"]["build"]
    assert (FILE.parent / build["context"] / build["dockerfile"]).samefile(
        REPOSITORY / "docker/Dockerfile"
    )
    assert f" AS {build['target']}\n" in DOCKERFILE
