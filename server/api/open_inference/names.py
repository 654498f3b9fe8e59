"""The two names of the model, and the outputs that each of them lists."""

from export.architecture import Stage
from export.bundle.manifest import Manifest
from server.errors import InvalidArgumentError, Violation, model_not_found, quote

LOGITS = "logits"
# Clients of Triton expect few outputs and ask for all that a model lists, load generators too. So
# the bundle's name lists the logits alone, and the same with this after it every stage as well.
TRACE_SUFFIX = "_trace"


def served_names(manifest: Manifest) -> tuple[str, str]:
    """Return the names that the model is served under."""
    return manifest.name, manifest.name + TRACE_SUFFIX


def known_outputs(manifest: Manifest) -> dict[str, Stage]:
    """Return the stage of every output that can be asked for, by the output's name."""
    return {LOGITS: manifest.stages[-1], **{stage.name: stage for stage in manifest.stages}}


def listed_outputs(manifest: Manifest, name: str) -> dict[str, Stage]:
    """Return the outputs that the model lists under one of its names, as `known_outputs` does."""
    if name == manifest.name:
        return {LOGITS: manifest.stages[-1]}
    return known_outputs(manifest)


def is_served(manifest: Manifest, name: str, asked_version: str, field: str) -> bool:
    """Tell if a model has that name and version; an empty version is any.

    Raises:
        InvalidArgumentError: the version, which came in `field`, is no number.
    """
    check_version_text(asked_version, field)
    # As text: Python refuses to read a number of thousands of digits.
    return name in served_names(manifest) and asked_version in {"", str(manifest.version)}


def check_version_text(asked_version: str, field: str) -> None:
    """Check that a version is a number, or that there is none.

    Raises:
        InvalidArgumentError: the version, which came in `field`, is no number.
    """
    if asked_version and not (asked_version.isascii() and asked_version.isdigit()):
        text = f"expected a whole number from 1 on, or nothing, got {quote(asked_version)}"
        raise InvalidArgumentError([Violation(field, text)])


def check_model(manifest: Manifest, name: str, asked_version: str, field: str) -> None:
    """Check that a model has that name and version.

    Raises:
        InvalidArgumentError: the version is no number.
        NotFoundError: there is another one; the text names it.
    """
    if not is_served(manifest, name, asked_version, field):
        asked = quote(asked_version).strip("'") or "any"
        raise model_not_found(name, asked, served_names(manifest), manifest.version)
