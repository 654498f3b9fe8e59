"""Write the reference of the settings from their classes: `make docs`."""

from pathlib import Path

from deploy.ray.score.config import ScoreSettings
from deploy.ray.serve.config import RayServeSettings
from export.settings import CommandSettings
from server.config import ServerSettings
from training.config import TrainingSettings

REFERENCE = Path(__file__).parent / "reference"
INTRODUCTION = """\
A flag takes precedence over its environment variable, and that over the default.
An unknown or malformed setting stops the start and is named. An empty variable sets nothing.
Neither do those that Kubernetes sets in a pod for services named `forward` or `forward-anything`.

This page is generated from `{source}` by `make docs`.
"""
PAGES: dict[str, tuple[type[CommandSettings], str, str]] = {
    "server-settings.md": (ServerSettings, "Settings of the server", "server/config.py"),
    "ray-settings.md": (
        RayServeSettings,
        "Settings of the application on Ray",
        "deploy/ray/serve/config.py",
    ),
    "training-settings.md": (TrainingSettings, "Settings of training", "training/config.py"),
    "score-settings.md": (
        ScoreSettings,
        "Settings of batch scoring",
        "deploy/ray/score/config.py",
    ),
}


def page(settings: type[CommandSettings], title: str, source: str) -> str:
    """Return a page in Markdown: a row for each setting."""
    rows = [
        "| flag | environment variable | default | meaning |",
        "|---|---|---|---|",
        *(_row(settings, name) for name in settings.model_fields),
    ]
    return "\n".join([f"# {title}", "", INTRODUCTION.format(source=source), *rows, ""])


def _row(settings: type[CommandSettings], name: str) -> str:
    field, variable = settings.model_fields[name], settings.variable(name)
    value = None if field.is_required() else field.default
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    default = "" if value is None else f"`{value}`"
    meaning = (field.description or "").removesuffix(f" [{variable}]").replace("|", "\\|")
    # What is required is given by its place in the command, in capitals.
    flag = name.upper() if field.is_required() else settings.flag(name)
    return f"| `{flag}` | `{variable}` | {default} | {meaning} |"


def main() -> None:
    """Write the pages."""
    REFERENCE.mkdir(exist_ok=True)
    for name, about in PAGES.items():
        (REFERENCE / name).write_text(page(*about), encoding="utf-8")


if __name__ == "__main__":
    main()
