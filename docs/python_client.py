"""Write the reference of the Python client from its docstrings: `make docs`."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import forward_client
from forward_client import pictures

PAGE = Path(__file__).parent / "reference" / "python-client.md"
CLIENT = "ForwardClient"
# The public names, in the order of the page: a page without one of them is not written.
NAMES = (
    *(CLIENT, "Prediction", "Trace", "TracedStage", "UnitStatistics", "Certificate"),
    *("Intervention", "Attribution", "Comparison", "RuntimeComparison", "StageComparison"),
    *("TrainingHistory", "Epoch", "Parameters", "StageParameters"),
    *("Model", "Reload", "ReloadFailure", "Tls", "ForwardError", "CredentialsError"),
)
PICTURE_NAMES = ("read_images", "load_images", "Images", "normalise", "PictureError")
MADE_BY_METHODS = ("Intervention",)
CONSTRUCTED = ("Tls",)  # of the classes with attributes alone: what a user makes
INTRODUCTION = """\
# Python client

`from forward_client import ForwardClient`: the distribution `forward-client`, in this repository
[client/](../../client/README.md). How to use it: [Call the server](../guides/calling.md). What
each status means: [Errors](errors.md).

This page is generated from the docstrings of `client/forward_client/` by `make docs`.
"""
PICTURES = """\
## Pictures

`from forward_client.pictures import read_images`: what `forward-client predict` reads files with.
It needs the extra, `forward-client[cli]`. What it reads: [Pictures](../guides/pictures.md).
"""
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):\n((?: .*\n?|\n)*)", re.M)
ENTRY = re.compile(r"^    (\w+): (.*(?:\n     +.*)*)", re.M)
MODULE = re.compile(r"\b(?:[a-zA-Z_]\w*\.)+(?=[A-Za-z_])")  # of a type in a signature


@dataclass
class Docstring:
    """A docstring in Google's form: what stands before its sections, and their entries."""

    text: str
    entries: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, documented: object) -> "Docstring":
        text = inspect.getdoc(documented) or ""
        entries = {
            name: {key: " ".join(value.split()) for key, value in ENTRY.findall(body)}
            for name, body in SECTION.findall(text)
        }
        return cls(SECTION.sub("", text).strip(), entries)


def page() -> str:
    """Return the page in Markdown.

    Raises:
        ValueError: a public name, an argument or an attribute is not documented.
    """
    _expect_all(NAMES, forward_client.__all__, "forward_client")
    _expect_all(PICTURE_NAMES, pictures.__all__, "forward_client.pictures")
    parts = [INTRODUCTION]
    for name in NAMES:
        parts += _described(name, getattr(forward_client, name))
    parts.append(PICTURES)
    for name in PICTURE_NAMES:
        parts += _described(name, getattr(pictures, name))
    return "\n".join(parts).rstrip() + "\n"


def _described(name: str, member: Any) -> Iterator[str]:  # noqa: ANN401 (any public object)
    """Yield the section of a class or of a function."""
    if not inspect.isclass(member):
        yield from _function(name, member, "###")
        return
    documented = Docstring.of(member)
    yield f"{'###' if name in PICTURE_NAMES else '##'} {name}\n"
    if is_dataclass(member) and name in CONSTRUCTED:
        yield _code(name, inspect.signature(member))
    yield f"{documented.text}\n"
    if name == CLIENT:
        yield from _function(name, member.__init__, "###")
        for method, function in vars(member).items():
            if not method.startswith("_"):
                yield from _function(f"{name}.{method}", function, "###")
        return
    rows = documented.entries.get("Attributes", {})
    own = vars(member).get("__annotations__", {})
    if is_dataclass(member):
        _expect_all(rows, [one.name for one in fields(member) if one.name in own], name)
    rows |= {
        one: _lower_first(Docstring.of(value).text)
        for one, value in vars(member).items()
        if isinstance(value, property)
    }
    if rows:
        yield _table("attribute", rows)
    if name in MADE_BY_METHODS:
        yield _table("made by", dict(_constructors(member)))


def _constructors(member: type) -> Iterator[tuple[str, str]]:
    """Yield each public class method with its signature, and what it returns."""
    for name, method in vars(member).items():
        if isinstance(method, classmethod) and not name.startswith("_"):
            signature = inspect.signature(getattr(member, name))
            plain = signature.replace(return_annotation=inspect.Signature.empty)
            yield f"{name}{MODULE.sub('', str(plain))}", Docstring.of(method.__func__).text


def _function(name: str, function: Callable[..., object], heading: str) -> Iterator[str]:
    """Yield the section of a function: its signature, arguments and errors."""
    documented = Docstring.of(function)
    signature = inspect.signature(function)
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    arguments = documented.entries.get("Args", {})
    _expect_all(arguments, [one.name for one in parameters], name)
    short = name.removeprefix(f"{CLIENT}.")
    yield f"{heading} {short}\n"
    yield _code(short, signature.replace(parameters=parameters))
    yield f"{documented.text}\n"
    if arguments:
        yield _table("argument", arguments)
    if raised := documented.entries.get("Raises", {}):
        yield _table("raises", raised)


def _code(name: str, signature: inspect.Signature) -> str:
    return f"```python\n{name}{MODULE.sub('', str(signature))}\n```\n"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _expect_all(documented: Any, there: Any, where: str) -> None:  # noqa: ANN401 (names)
    if set(documented) != set(there):
        differing = sorted(set(documented) ^ set(there))
        raise ValueError(f"{where}: documented and there differ: {', '.join(differing)}")


def _table(heading: str, rows: dict[str, str]) -> str:
    lines = [f"| {heading} | meaning |", "|---|---|"]
    lines += [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
