"""Settings of a command: flag over environment variable over file over default, declared once."""

import argparse
import difflib
import os
import re
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliApp,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

# Kubernetes describes each service of a namespace to every pod in it by variables named after the
# service: "service links". Those of services whose names begin with "forward" look like settings.
_LINK_NAME = re.compile(
    r"FORWARD_(\w+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
# FORWARD_GRPC_PORT is a setting, and what Kubernetes sets for a service named forward-grpc.
# The value tells them apart.
_LINK_PORT_NAME = re.compile(r"FORWARD_(\w+_)?PORT")
_LINK_PORT_VALUE = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


SettingsT = TypeVar("SettingsT", bound="CommandSettings")


class CommandSettings(BaseSettings):
    """Base of a command's settings; a subclass gives its prefix and fields.

    A command whose settings may also come from a TOML file has a field named `config`.
    """

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
            named = f" [{cls.variable(name)}]"
            text = (field.description or "").removesuffix(named)  # one that is inherited has it
            field.description = f"{text}{named}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings' signature)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings' signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources below the flags; `init_settings` has the values of the file."""
        return _Environment(settings_cls), init_settings

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
        """Return a sentence for each variable with the prefix that is not a setting."""
        prefix = cls.model_config["env_prefix"]
        known = [cls.variable(field) for field in cls.model_fields]
        return [
            _unknown(f"environment variable {name}", name, known)
            for name, value in sorted(os.environ.items())
            if name.startswith(prefix)
            and name not in known
            and not name.startswith(cls.other_prefixes or ("\0",))
            and _is_set(name, value)
        ]

    @classmethod
    def links_named_like_settings(cls) -> list[str]:
        """Return the variables of settings that hold a service link and are ignored."""
        known = [cls.variable(field) for field in cls.model_fields]
        return [name for name in known if _is_service_link(name, os.environ.get(name, ""))]


class _Environment(EnvSettingsSource):
    """The environment without the variables that set nothing; an empty flag is an error."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        loaded = super()._load_env_vars()
        return {name: value for name, value in loaded.items() if _is_set(name.upper(), value or "")}


def _is_set(name: str, value: str) -> bool:
    """Tell if a variable sets anything: an empty one and a service link do not."""
    return value != "" and not _is_service_link(name, value)


def _is_service_link(name: str, value: str) -> bool:
    if _LINK_NAME.fullmatch(name):
        return True
    return bool(_LINK_PORT_NAME.fullmatch(name) and _LINK_PORT_VALUE.fullmatch(value))


def read_settings(
    settings_type: type[SettingsT], arguments: Sequence[str] | None = None
) -> SettingsT:
    """Read the settings of a command; exit with status 2 and name each invalid one."""
    program = settings_type.model_config["cli_prog_name"]
    command_line = sys.argv[1:] if arguments is None else list(arguments)
    violations = settings_type.unknown_variables()
    settings = None
    file = _file_of(settings_type, command_line)
    values: dict[str, Any] = {}
    try:
        values = _read_file(settings_type, file) if file else {}
        settings = CliApp.run(settings_type, cli_args=command_line, **values)
    except _FileError as error:
        violations += error.violations
    except ValidationError as error:
        flags = {argument.partition("=")[0] for argument in command_line}
        from_file = [
            field
            for field in values
            if settings_type.flag(field) not in flags
            and not _is_set(variable := settings_type.variable(field), os.environ.get(variable, ""))
        ]
        violations += [_sentence(settings_type, one, file, from_file) for one in error.errors()]
    if settings is None or violations:
        for text in violations:
            print(f"{program}: {text}", file=sys.stderr)
        print(f"{program}: --help lists every setting", file=sys.stderr)
        raise SystemExit(2)
    return settings


class _FileError(Exception):
    def __init__(self, *violations: str) -> None:
        self.violations = violations


def _file_of(settings_type: type[CommandSettings], command_line: Sequence[str]) -> Path | None:
    """Return the file that `--config` or its variable names, which is read before the rest."""
    if "config" not in settings_type.model_fields:
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--config", nargs="?", default=os.environ.get(settings_type.variable("config"))
    )
    named = parser.parse_known_args(command_line)[0].config
    return Path(named) if named else None


def _read_file(settings_type: type[CommandSettings], file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _FileError(f"--config: {file}: can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _FileError(f"--config: {file}: is not TOML: {error}") from error
    known = settings_type.model_fields.keys() - {"config"}
    if unknown := [_unknown(f"{file}: {key}", key, known) for key in values if key not in known]:
        raise _FileError(*unknown)
    return values


def _unknown(subject: str, name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{subject} is not a setting{hint}"


def _sentence(
    settings_type: type[CommandSettings],
    violation: ErrorDetails,
    file: Path | None,
    from_file: Collection[str],
) -> str:
    if not violation["loc"]:  # of several settings together; the text names them
        return violation["msg"].removeprefix("Value error, ")
    field = str(violation["loc"][0])
    names = f"{settings_type.flag(field)} ({settings_type.variable(field)})"
    if field in from_file:
        names = f"{file}: {field}"
    return f"{names}: {violation['msg'].removeprefix('Value error, ')}, got {violation['input']!r}"
