"""Settings of a command: flag over environment variable over default, each declared once."""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

# Kubernetes describes a service named "forward" to every pod of its namespace
# by these variables; they are not meant as settings.
_SERVICE_LINK = re.compile(
    r"FORWARD_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)"
)


SettingsT = TypeVar("SettingsT", bound="CommandSettings")


class CommandSettings(BaseSettings):
    """Base of a command's settings; a subclass gives its prefix and fields."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    # Prefixes of other commands that begin with this command's own prefix.
    other_prefixes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Name each setting's environment variable in its --help."""
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            field.description = f"{field.description} [{cls.variable(name)}]"

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the environment variable of a field."""
        return f"{cls.model_config['env_prefix']}{field}".upper()

    @classmethod
    def flag(cls, field: str) -> str:
        """Return the command-line flag of a field."""
        return f"--{field.replace('_', '-')}"

    @classmethod
    def unknown_variables(cls) -> list[str]:
        """Return a sentence for each variable that has the prefix but is no setting."""
        prefix = cls.model_config["env_prefix"]
        known = [cls.variable(field) for field in cls.model_fields]
        sentences = []
        for name in sorted(os.environ):
            if (
                name.startswith(prefix)
                and name not in known
                and not name.startswith(cls.other_prefixes or ("\0",))
                and not _SERVICE_LINK.fullmatch(name)
            ):
                close = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                sentences.append(f"environment variable {name} is not a setting{hint}")
        return sentences


def read_settings(
    settings_type: type[SettingsT], arguments: Sequence[str] | None = None
) -> SettingsT:
    """Read the settings of a command; exit with status 2 and name each one that is wrong."""
    program = settings_type.model_config["cli_prog_name"]
    faults = settings_type.unknown_variables()
    settings = None
    try:
        command_line = sys.argv[1:] if arguments is None else list(arguments)
        settings = CliApp.run(settings_type, cli_args=command_line)
    except ValidationError as error:
        faults += [_sentence(settings_type, fault) for fault in error.errors()]
    if settings is None or faults:
        for text in faults:
            print(f"{program}: {text}", file=sys.stderr)
        print(f"{program}: --help lists every setting", file=sys.stderr)
        raise SystemExit(2)
    return settings


def _sentence(settings_type: type[CommandSettings], fault: ErrorDetails) -> str:
    if not fault["loc"]:  # of several settings together; the text names them
        return fault["msg"].removeprefix("Value error, ")
    field = str(fault["loc"][0])
    names = f"{settings_type.flag(field)} ({settings_type.variable(field)})"
    return f"{names}: {fault['msg']}, got {fault['input']!r}"
