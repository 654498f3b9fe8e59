"""Settings: flag over environment over default, and what is wrong is named."""

from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from export.settings import CommandSettings, read_settings
from server.config import ServerSettings
from tests.support.bundles import REPOSITORY
from training.config import Recipe, TrainingSettings

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


def test_flag_then_environment_then_default(
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
        (["--max-connection-age", "9", "--drain-timeout", "0"], "--max-connection-age needs"),
        (["--max-connections", "0"], "--max-connections"),
        (["--keepalive-time", "-1"], "--keepalive-time"),
        (["--keepalive-time", "0.5"], "expected 0, for never, or 1 to 86400 seconds"),
        (["--keepalive-time", "1e300"], "expected 0, for never, or 1 to 86400 seconds"),
        (["--keepalive-time", "nan"], "--keepalive-time"),
        (["--max-connection-age", "0.1"], "expected 0, for never, or 1 to 86400 seconds"),
        (["--reload-interval", "0.001"], "expected 0, for never, or 0.1 to 86400 seconds"),
        (["--reload-interval", "nan"], "--reload-interval"),
        (["--model-version", "9223372036854775808"], "--model-version"),
        (["--drift-window", "499"], "expected 0, for none, or at least 500 images, got '499'"),
        (["--drift-window", "-1"], "--drift-window"),
        (["--threads", ""], "--threads"),  # an empty flag is a mistake of whoever gave it
        (["--drain-delay", "1e300"], "--drain-delay"),
        (["--drain-timeout", "1e300"], "--drain-timeout"),
        (["--max-connection-age", "1e300"], "--max-connection-age"),
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


def test_an_unknown_training_variable_stops_only_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORWARD_TRAINING_EPOCH", "1")
    assert read_settings(ServerSettings, []).grpc_port == 8001
    assert "did you mean FORWARD_TRAINING_EPOCHS" in refusal(TrainingSettings, [], capsys)


def test_variables_of_the_client_do_not_stop_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARD_CLIENT_TLS_CA", "ca.pem")  # as in the image, for its health check
    assert read_settings(ServerSettings, []).tls_client_ca is None


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
def test_the_reference_lists_every_setting_with_its_default(
    settings_type: type[CommandSettings],
) -> None:
    page = "server" if settings_type is ServerSettings else "training"
    reference = (REPOSITORY / "docs" / "reference" / f"{page}-settings.md").read_text()
    for name, field in settings_type.model_fields.items():
        value = field.default
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        default = "" if value is None else f"`{value}`"
        row = f"| `{settings_type.flag(name)}` | `{settings_type.variable(name)}` | {default}"
        assert row.rstrip() in reference, row


def file_of(folder: Path, text: str) -> str:
    path = folder / "recipe.toml"
    path.write_text(text)
    return str(path)


def test_flag_then_environment_then_file_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(tmp_path, 'epochs = 5\nseed = 6\ndataset = "digits"\nhidden = [8, 4]')
    monkeypatch.setenv("FORWARD_TRAINING_SEED", "7")
    settings = read_settings(TrainingSettings, ["--config", file])
    assert (settings.epochs, settings.seed, settings.dataset) == (5, 7, "digits")
    assert settings.hidden == (8, 4)
    assert settings.batch_images == Recipe().batch_images
    assert read_settings(TrainingSettings, [f"--config={file}", "--seed", "8"]).seed == 8
    monkeypatch.setenv("FORWARD_TRAINING_CONFIG", file)
    assert read_settings(TrainingSettings, []).epochs == 5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epoks = 5", "recipe.toml: epoks is not a setting; did you mean epochs?"),
        ("config = 'other.toml'", "recipe.toml: config is not a setting"),
        ("epochs = 0", "recipe.toml: epochs: Input should be greater than or equal to 1, got 0"),
        ("hidden = []", "recipe.toml: hidden: expected 1 to 16 layers"),
        ("epochs = ", "recipe.toml: is not TOML"),
        ("\0", "recipe.toml: is not TOML"),
    ],
)
def test_a_wrong_settings_file_is_named(
    tmp_path: Path, text: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(TrainingSettings, ["--config", file_of(tmp_path, text)], capsys)


def test_a_wrong_flag_over_a_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(tmp_path, "epochs = 5")
    message = refusal(TrainingSettings, ["--config", file, "--epochs", "0"], capsys)
    assert "--epochs (FORWARD_TRAINING_EPOCHS): " in message


@pytest.mark.parametrize("name", ["nowhere.toml", "."])
def test_an_unreadable_settings_file_is_named(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(TrainingSettings, ["--config", str(tmp_path / name)], capsys)
    assert f"--config: {tmp_path / name}: can't be read" in message


def test_config_without_a_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--config" in refusal(TrainingSettings, ["--config"], capsys)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--hidden", "64,x"], "--hidden (FORWARD_TRAINING_HIDDEN)"),
        (["--hidden", "0"], "--hidden"),
        (["--hidden", ",".join("1" * 17)], "expected 1 to 16 layers"),
        (["--hidden", f"{10**9}"], "(FORWARD_TRAINING_HIDDEN): the weights would take 2,961 GiB"),
        (["--hidden", f"{10**30}"], "a file of ONNX ends at 2 GiB: expected fewer units"),
        (["--hidden", f"128,{10**4000}"], "--hidden (FORWARD_TRAINING_HIDDEN)"),
        (["--epochs", f"{10**30}"], "--epochs"),
        (["--batch-images", f"{10**30}"], "--batch-images"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--weight-decay", "nan"], "--weight-decay"),
        (["--augmentation", "inf"], "--augmentation"),
        (["--threads", "100000"], "--threads"),
        (["--dataset", "cifar"], "--dataset"),
        (["--seeds", "0"], "--seeds"),
        (["--threads", "0"], "--threads"),
        (["--learning-rate", "0"], "--learning-rate"),
        (["--weight-decay", "-1"], "--weight-decay"),
        (["--average-decay", "1"], "--average-decay"),
        (["--seed", "4294967295", "--seeds", "2"], "--seed 4294967295 and --seeds 2"),
    ],
)
def test_a_wrong_training_setting_is_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(TrainingSettings, arguments, capsys)


def test_hidden_layers_come_by_flag_and_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_settings(TrainingSettings, ["--hidden", "256,128"]).hidden == (256, 128)
    monkeypatch.setenv("FORWARD_TRAINING_HIDDEN", "32, 16")
    assert read_settings(TrainingSettings, []).hidden == (32, 16)


# Values of any recipe that is allowed.
RECIPES = st.builds(
    Recipe,
    dataset=st.sampled_from(["mnist", "fashion-mnist", "digits"]),
    hidden=st.lists(st.integers(1, 5000), min_size=1, max_size=16).map(tuple),
    epochs=st.integers(1, 10**6),
    seed=st.integers(0, 2**32 - 1),
    learning_rate=st.floats(0, 1, exclude_min=True),
    weight_decay=st.floats(0, 1),
    average_decay=st.floats(0, 1, exclude_max=True),
    augmentation=st.floats(0, 10),
)


@hypothesis.given(recipe=RECIPES)
def test_a_recipe_comes_back_from_its_file_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe
) -> None:
    file = file_of(tmp_path_factory.mktemp("recipe"), recipe.toml())
    settings = read_settings(TrainingSettings, ["--config", file])
    assert settings.recipe(recipe.seed) == recipe
