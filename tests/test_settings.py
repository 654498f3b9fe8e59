"""Settings: flag over environment over default, and what is wrong is named."""

import pytest

from export.settings import CommandSettings, read_settings
from server.config import ServerSettings
from tests.bundles import REPOSITORY
from training.config import TrainingSettings

COMMANDS = (ServerSettings, TrainingSettings)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings_type in COMMANDS:
        for field in settings_type.model_fields:
            monkeypatch.delenv(settings_type.variable(field), raising=False)


def refusal(
    settings_type: type[CommandSettings],
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
) -> str:
    with pytest.raises(SystemExit) as stopped:
        read_settings(settings_type, arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_a_flag_beats_the_environment_which_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_settings(ServerSettings, []).grpc_port == 8001
    monkeypatch.setenv("FORWARD_GRPC_PORT", "9001")
    assert read_settings(ServerSettings, []).grpc_port == 9001
    assert read_settings(ServerSettings, ["--grpc-port", "9002"]).grpc_port == 9002


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--grpc-prt", "1"], "--grpc-prt"),
        (["--grpc-port", "70000"], "--grpc-port (FORWARD_GRPC_PORT)"),
        (["--grpc-port", "http"], "got 'http'"),
        (["--runtime", "tensorrt"], "--runtime"),
        (["--model-version", "0"], "--model-version"),
        (["--drain-timeout", "inf"], "--drain-timeout"),
        (["--max-queue-images", "5"], "--max-queue-images 5 is below --max-batch-images 1024"),
        (["--max-queue-images", "5"], "python -m server: --max-queue-images"),
        (["--grpc-port", "7001", "--metrics-port", "7001"], "are both 7001"),
        (["--max-batch-images", "1000000000"], "--max-batch-images"),
        (["--max-response-bytes", "99999999999999999999"], "--max-response-bytes"),
        (["serve"], "serve"),
        (["--grpc-por", "1"], "--grpc-por"),
    ],
)
def test_a_wrong_flag_stops_the_start_by_name(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(ServerSettings, arguments, capsys)


def test_all_wrong_settings_are_named_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORWARD_METRICS_PORT", "x")
    monkeypatch.setenv("FORWARD_GRPC_PROT", "1")
    message = refusal(ServerSettings, ["--log-level", "loud"], capsys)
    assert "FORWARD_METRICS_PORT" in message
    assert "--log-level" in message
    assert "FORWARD_GRPC_PROT is not a setting; did you mean FORWARD_GRPC_PORT?" in message


def test_an_unknown_training_variable_stops_training_but_not_serving(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORWARD_TRAINING_EPOCH", "1")
    assert read_settings(ServerSettings, []).grpc_port == 8001
    assert "did you mean FORWARD_TRAINING_EPOCHS" in refusal(TrainingSettings, [], capsys)


@pytest.mark.parametrize(
    "name",
    [
        "FORWARD_SERVICE_HOST",
        "FORWARD_SERVICE_PORT",
        "FORWARD_SERVICE_PORT_GRPC",
        "FORWARD_PORT",
        "FORWARD_PORT_8001_TCP",
        "FORWARD_PORT_8001_TCP_ADDR",
    ],
)
def test_variables_that_kubernetes_sets_for_a_service_named_forward_are_no_settings(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:8001")
    assert read_settings(ServerSettings, []).grpc_port == 8001


@pytest.mark.parametrize("settings_type", COMMANDS)
def test_settings_are_frozen_and_described(settings_type: type[CommandSettings]) -> None:
    settings = read_settings(settings_type, [])
    for name, field in settings_type.model_fields.items():
        assert field.description, name
        with pytest.raises(ValueError, match="frozen"):
            setattr(settings, name, None)


@pytest.mark.parametrize("settings_type", COMMANDS)
def test_help_lists_every_setting(
    settings_type: type[CommandSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        read_settings(settings_type, ["--help"])
    assert stopped.value.code == 0
    listed = capsys.readouterr().out
    for field in settings_type.model_fields:
        assert settings_type.flag(field) in listed
        assert settings_type.variable(field) in listed


@pytest.mark.parametrize("settings_type", COMMANDS)
def test_the_readme_lists_every_setting_with_its_default(
    settings_type: type[CommandSettings],
) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for name, field in settings_type.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        row = f"| `{settings_type.flag(name)}` | `{settings_type.variable(name)}` | {default}"
        assert row.rstrip() in readme, row
