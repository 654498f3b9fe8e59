"""Write the reference of the API from the comments of the .proto: `make docs`."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

PAGE = Path(__file__).parent / "reference" / "api.md"
FOLDER = Path(__file__).parent.parent / "proto"
PROTO = "forward/v1/forward.proto"
PACKAGE = ".forward.v1."
INTRODUCTION = f"""\
# API

{{summary}}

This page is generated from the comments of [proto/{PROTO}](../../proto/{PROTO}) by
`make docs`. The contract is checked with buf: STANDARD lint, and no breaking change.

The same port serves `grpc.health.v1.Health`, server reflection (v1 and v1alpha) and the Open
Inference Protocol, `inference.GRPCInferenceService`. The RPCs of the latter are in
[Open Inference Protocol](../guides/open-inference.md), its messages in
[proto/inference/open_inference.proto](../../proto/inference/open_inference.proto). What each status
means: [Errors](errors.md).
"""
# Numbers of the fields of descriptors, which make the paths of their comments.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_MEMBER = 2  # field of a message, value of an enum, method of a service
_PACKAGE_PATH = (2,)


def page() -> str:
    """Return the page in Markdown."""
    file = _described()
    comments = {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
    }
    parts = [INTRODUCTION.format(summary=_paragraphs(comments[_PACKAGE_PATH]))]
    for index, service in enumerate(file.service):
        path = (_SERVICE, index)
        parts += [f"## {service.name}\n", f"{_paragraphs(comments[path])}\n"]
        for number, method in enumerate(service.method):
            parts += _method(method, comments[*path, _MEMBER, number])
    parts.append("## Messages\n")
    for index, message in enumerate(file.message_type):
        parts += _message(message, comments, (_MESSAGE, index))
    parts.append("## Enumerations\n")
    for index, enum in enumerate(file.enum_type):
        parts += _enum(enum, comments, (_ENUM, index))
    return "\n".join(parts).rstrip() + "\n"


def _described() -> FileDescriptorProto:
    """Return the file's descriptor with its comments, which the generated code lacks."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{FOLDER}", PROTO]
        options = ["--include_source_info", f"--descriptor_set_out={out}"]
        subprocess.run([*command, *options], check=True)  # noqa: S603 (words of its own alone)
        (file,) = FileDescriptorSet.FromString(out.read_bytes()).file
    return file


def _method(method: MethodDescriptorProto, comment: str) -> Iterator[str]:
    request, response = _link(method.input_type), _link(method.output_type)
    if method.client_streaming:
        request = f"stream of {request}"
    if method.server_streaming:
        response = f"stream of {response}"
    yield f"### {method.name}\n"
    yield f"{request} → {response}\n"
    yield f"{_paragraphs(comment)}\n"


def _message(
    message: DescriptorProto, comments: dict[tuple[int, ...], str], path: tuple[int, ...]
) -> Iterator[str]:
    rows = [
        (
            f"`{field.name}`",
            _type(field),
            str(field.number),
            _line(comments[*path, _MEMBER, number]),
        )
        for number, field in enumerate(message.field)
    ]
    yield f"### {message.name}\n"
    yield f"{_paragraphs(comments[path])}\n"
    for index, oneof in enumerate(message.oneof_decl):
        members = [
            f"`{field.name}`"
            for field in message.field
            if field.HasField("oneof_index") and field.oneof_index == index
        ]
        yield f"One of {', '.join(members)} (`{oneof.name}`).\n"
    yield _table(("field", "type", "number", "meaning"), rows)


def _enum(
    enum: EnumDescriptorProto, comments: dict[tuple[int, ...], str], path: tuple[int, ...]
) -> Iterator[str]:
    rows = [
        (f"`{value.name}`", str(value.number), _line(comments[*path, _MEMBER, number]))
        for number, value in enumerate(enum.value)
    ]
    yield f"### {enum.name}\n"
    yield f"{_paragraphs(comments[path])}\n"
    yield _table(("value", "number", "meaning"), rows)


def _type(field: FieldDescriptorProto) -> str:
    if field.type_name:
        name = _link(field.type_name)
    else:
        name = f"`{FieldDescriptorProto.Type.Name(field.type).removeprefix('TYPE_').lower()}`"
    is_list = field.label == FieldDescriptorProto.LABEL_REPEATED
    return f"list of {name}" if is_list else name


def _link(type_name: str) -> str:
    """Return a link to a type of this page, or the name of one of another."""
    name = type_name.removeprefix(PACKAGE)
    return f"`{name.removeprefix('.')}`" if "." in name else f"[{name}](#{name.lower()})"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _paragraphs(comment: str) -> str:
    """Return a comment without the space that follows each `//`."""
    return "\n".join(line.removeprefix(" ") for line in comment.strip("\n").split("\n")).strip()


def _line(comment: str) -> str:
    return " ".join(comment.split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
