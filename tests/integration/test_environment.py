"""Environment variables that set nothing: empty ones, and those that Kubernetes sets in a pod."""

import argparse
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import hypothesis
import pytest
from hypothesis import strategies as st

from export.settings import CommandSettings, read_settings
from forward_client.__main__ import _connection_parser, _parser
from server.config import ServerSettings
from tests.support.bundles import REPOSITORY
from tests.support.servers import start_server
from training.config import TrainingSettings

pytestmark = pytest.mark.one_transport

COMMANDS = (ServerSettings, TrainingSettings)
CLIENT_VARIABLES = re.findall(r"\[(FORWARD_CLIENT_\w+)\]", _connection_parser().format_help())


@dataclass(frozen=True)
class Port:
    """A port of a Kubernetes service; only the first may have no name."""

    name: str
    number: int
    protocol: str


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have these variables of ours, and no others."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("FORWARD_")}
    with patch.dict(os.environ, {**others, **variables}, clear=True):
        yield


def links(service: str, ip: str, ports: list[Port]) -> dict[str, str]:
    """Return what Kubernetes sets for a service, by the text of kubernetes/pkg/kubelet/envvars."""
    prefix = service.upper().replace("-", "_")
    where = f"[{ip}]" if ":" in ip else ip
    found = {
        f"{prefix}_SERVICE_HOST": ip,
        f"{prefix}_SERVICE_PORT": str(ports[0].number),
        f"{prefix}_PORT": f"{ports[0].protocol.lower()}://{where}:{ports[0].number}",
    }
    for port in ports:
        if port.name:
            name = port.name.upper().replace("-", "_")
            found[f"{prefix}_SERVICE_PORT_{name}"] = str(port.number)
        each = f"{prefix}_PORT_{port.number}_{port.protocol}"
        found[each] = f"{port.protocol.lower()}://{where}:{port.number}"
        found[f"{each}_PROTO"] = port.protocol.lower()
        found[f"{each}_PORT"] = str(port.number)
        found[f"{each}_ADDR"] = ip
    return found


def client_settings() -> argparse.Namespace:
    return _parser().parse_args(["health"])


def settings_of_all_commands() -> list[dict[str, object]]:
    read = [read_settings(command, []).model_dump() for command in COMMANDS]
    return [*read, vars(client_settings())]


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True)
FIELDS = sorted({field for command in COMMANDS for field in command.model_fields})
# Also names that make variables of settings: forward-grpc, forward-training-seed, forward-client.
SETTING_LIKE = st.sampled_from([field.replace("_", "-") for field in FIELDS])
PARTS = st.one_of(
    LABELS,
    SETTING_LIKE,
    SETTING_LIKE.map(lambda name: name.removesuffix("-port")),
    st.sampled_from(["client", "training", "client-address", "training-mirror", "-x"]),
)
SERVICES = st.one_of(st.just("forward"), PARTS.map(lambda part: f"forward-{part}"))
PORTS = st.lists(
    st.builds(
        Port,
        st.one_of(LABELS, SETTING_LIKE),
        st.integers(1, 65535),
        st.sampled_from(["TCP", "UDP", "SCTP"]),
    ),
    min_size=1,
    max_size=3,
)
IPS = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))


@hypothesis.given(
    services=st.lists(st.builds(links, SERVICES, IPS, PORTS), min_size=1, max_size=3),
    unnamed=st.booleans(),
)
@hypothesis.example(
    services=[links("forward-grpc", "10.0.0.1", [Port("", 80, "TCP")])], unnamed=False
)
@hypothesis.example(
    services=[links("forward-client", "fd00::1", [Port("", 80, "TCP")])], unnamed=False
)
def test_service_links_of_kubernetes_set_nothing(
    services: list[dict[str, str]], unnamed: bool
) -> None:
    with environment({}):
        expected = settings_of_all_commands()
    variables = {name: value for service in services for name, value in service.items()}
    if unnamed:
        variables = {n: v for n, v in variables.items() if "_SERVICE_PORT_" not in n}
    with environment(variables):
        assert settings_of_all_commands() == expected


def test_a_setting_beside_service_links_is_set() -> None:
    variables = links("forward-metrics", "10.0.0.1", [Port("http", 80, "TCP")])
    with environment({**variables, "FORWARD_GRPC_PORT": "9001", "FORWARD_CLIENT_TIMEOUT": "3"}):
        assert read_settings(ServerSettings, []).grpc_port == 9001
        assert client_settings().timeout == 3


def test_a_service_link_named_like_a_setting_is_logged() -> None:
    variables = links("forward-grpc", "10.0.0.1", [Port("", 80, "TCP")])
    with start_server(**variables) as server:
        said = [line for line in server.log() if "service links" in line["event"]]
        assert [line["variables"] for line in said] == [["FORWARD_GRPC_PORT"]]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FORWARD_GRPC_PROT", "1", "did you mean FORWARD_GRPC_PORT"),
        ("FORWARD_METRIC_PORT", "9000", "did you mean FORWARD_METRICS_PORT"),
        ("FORWARD_PORT", "9000", "FORWARD_PORT is not a setting"),
        ("FORWARD_GRPC_PORT", "tcp://10.0.0.1", "got 'tcp://10.0.0.1'"),
        ("FORWARD_GRPC_PORT", "http://10.0.0.1:80", "got 'http://10.0.0.1:80'"),
        ("FORWARD_THREADS", "tcp://10.0.0.1:80", "FORWARD_THREADS"),
        ("FORWARD_SERVICE_NAME", "x", "FORWARD_SERVICE_NAME is not a setting"),
    ],
)
def test_a_mistake_like_a_service_link_is_named(
    name: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with environment({name: value}), pytest.raises(SystemExit):
        read_settings(ServerSettings, [])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("FORWARD_CLIENT_ADRESS", "did you mean FORWARD_CLIENT_ADDRESS?"),
        ("FORWARD_CLIENT_PORT", "FORWARD_CLIENT_PORT is not a setting"),
    ],
)
def test_a_mistyped_variable_of_the_client_is_named(
    name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with environment({name: "8001"}), pytest.raises(SystemExit):
        client_settings()
    error = capsys.readouterr().err
    assert said in error
    assert "python -m forward_client: error:" in error


@pytest.mark.parametrize("command", COMMANDS)
def test_empty_variables_set_nothing(command: type[CommandSettings]) -> None:
    with environment({}):
        expected = read_settings(command, [])
    names = [command.variable(field) for field in command.model_fields]
    for empty in ([name] for name in names):
        with environment(dict.fromkeys(empty, "")):
            assert read_settings(command, []) == expected, empty
    unknown = f"{command.model_config['env_prefix']}UNKNOWN"
    with environment(dict.fromkeys([*names, unknown], "")):
        assert read_settings(command, []) == expected


def test_empty_variables_of_the_client_set_nothing() -> None:
    assert len(CLIENT_VARIABLES) == 7
    with environment({}):
        expected = vars(client_settings())
    with environment(dict.fromkeys([*CLIENT_VARIABLES, "FORWARD_CLIENT_UNKNOWN"], "")):
        assert vars(client_settings()) == expected


def test_an_empty_variable_keeps_the_files_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("epochs = 0")
    with environment({"FORWARD_TRAINING_EPOCHS": ""}), pytest.raises(SystemExit):
        read_settings(TrainingSettings, ["--config", str(file)])
    assert "recipe.toml: epochs: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, "localhost:8001"),
        ({"FORWARD_GRPC_PORT": ""}, "localhost:8001"),
        ({"FORWARD_GRPC_PORT": "9001"}, "localhost:9001"),
        ({"FORWARD_GRPC_PORT": "tcp://10.0.0.1:80"}, "localhost:8001"),
        ({"FORWARD_HOST": "unix:/run/forward.sock"}, "unix:/run/forward.sock"),
    ],
)
def test_the_images_health_check_calls_its_server(variables: dict[str, str], address: str) -> None:
    """The form for an image without the native part; forward-health has tests of its own."""
    command = (REPOSITORY / "docker" / "forward-health.sh").read_text()
    command = command.replace("/opt/forward/bin/forward-client", "echo")
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["health", "--address", address]
