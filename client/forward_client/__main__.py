"""Command line of the client: `forward-client predict IMAGE.png [--trace]`."""

import signal

from forward_client.signals import end_at_once_on

if __name__ == "__main__":  # before the other imports, which take a while
    end_at_once_on(signal.SIGTERM, signal.SIGINT)

import argparse
import difflib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from forward_client import extra
from forward_client.address import parse_address
from forward_client.arguments import add_compare_flags, add_explain_flags, add_trace_flags
from forward_client.channel import Tls, read_token
from forward_client.connection import MAX_TIMEOUT_SECONDS, ForwardClient
from forward_client.environment import PREFIX, client_variables
from forward_client.errors import ArgumentError, CredentialsError, ForwardError, PictureError
from forward_client.output import complain, program_name

DEFAULT_TIMEOUT_SECONDS = 10.0
TIMEOUT_SECONDS = {"compare": 60.0}  # its first call may have to load runtimes
IMAGE_HELP = (
    "a picture of one digit (PNG or any other kind, any size and colour), or a NumPy file (.npy), "
    "uint8 or floating in 0..1: [28, 28] or [N, 28, 28] is sent as it is, any other "
    "[height, width] is read as a picture"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, or 1 for an error or a server not serving."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it silently
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # no other stream raises for a character that it lacks
        sys.stdout.reconfigure(errors="replace")
    try:
        return _run(arguments)
    except ForwardError as error:
        hint = " (--token-file FILE)" if error.code == "UNAUTHENTICATED" else ""
        complain(f"{error}{hint}")
    except (ArgumentError, CredentialsError, PictureError) as error:
        complain(str(error))
    except OSError as error:  # those of files have become one of the above
        complain(f"standard output can't be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still flushes at exit
    return 1


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    if options.command == "health":
        with _connect(options) as client:
            status = _health(client, options.service)
    else:
        status = _print_images(options)
    if sys.stdout is not None:  # closed by the caller
        sys.stdout.flush()
    return status


def _print_images(options: argparse.Namespace) -> int:
    """Run a command that reads pictures; return its exit status."""
    try:
        from forward_client.terminal import commands  # noqa: PLC0415 (the base install lacks it)
    except ModuleNotFoundError as error:
        if error.name not in extra.MODULES:
            raise
        complain(f"{options.command} needs Pillow and rich: {extra.INSTALL}")
        return 1
    with _connect(options) as client:
        return commands.run(client, options)


def _connect(options: argparse.Namespace) -> ForwardClient:
    own = {
        "--tls-cert": options.tls_cert,
        "--tls-key": options.tls_key,
        "--tls-server-name": options.tls_server_name,
    }
    tls = None
    if options.tls_ca:
        tls = Tls(options.tls_ca, options.tls_cert, options.tls_key, options.tls_server_name or "")
    elif useless := [flag for flag, value in own.items() if value]:
        raise CredentialsError(f"{useless[0]} needs --tls-ca beside it")
    token = read_token(options.token_file) if options.token_file else None
    timeout = options.timeout or TIMEOUT_SECONDS.get(options.command, DEFAULT_TIMEOUT_SECONDS)
    return ForwardClient(options.address, timeout_seconds=timeout, tls=tls, token=token)


def _health(client: ForwardClient, service: str) -> int:
    status = client.health(service)
    print(status)
    return 0 if status == "SERVING" else 1


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise argparse.ArgumentTypeError(
            f"expected seconds above 0 and at most {MAX_TIMEOUT_SECONDS}, got {text!r}"
        )
    return seconds


def _address(text: str) -> str:
    try:
        return parse_address(text).text
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _connection_parser() -> argparse.ArgumentParser:
    """Return the settings of the connection: flag over environment variable over default."""
    parser = argparse.ArgumentParser(prog=program_name(), add_help=False)
    known: dict[str, str] = {}
    variables = client_variables(os.environ)

    def add(flag: str, kind: Callable[[str], object], default: str | None, text: str) -> None:
        variable = PREFIX + flag.strip("-").replace("-", "_").upper()
        known[variable] = flag
        shown = "" if default is None else f" ({default})"
        value = variables.get(variable, default)
        parser.add_argument(flag, type=kind, default=value, help=f"{text}{shown} [{variable}]")

    add("--address", _address, "localhost:8001", "host:port of the server, or unix:/path")
    text = "seconds for each call (10; compare, whose first call loads runtimes: 60)"
    add("--timeout", _seconds, None, text)
    add(
        "--tls-ca",
        Path,
        None,
        "CA certificates, PEM: use TLS and verify the server's certificate with them",
    )
    add("--tls-cert", Path, None, "the client's certificate, for a server that requires one, PEM")
    add("--tls-key", Path, None, "the private key of that certificate, PEM")
    add("--tls-server-name", str, None, "name in the server's certificate, if it is not the host")
    add("--token-file", Path, None, "file whose first line is the token to send")
    for name in sorted(variables.keys() - known.keys()):
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        parser.error(f"environment variable {name} is not a setting of the client{hint}")
    return parser


def _parser() -> argparse.ArgumentParser:
    common = _connection_parser()
    pictures = argparse.ArgumentParser(add_help=False)
    pictures.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help=IMAGE_HELP)
    pictures.add_argument(
        "--json",
        action="store_true",
        help="print JSON: an object for each image; of compare one for all",
    )

    parser = argparse.ArgumentParser(
        prog=program_name(), description="Call a Forward server.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    predict = commands.add_parser(
        "predict", parents=[common, pictures], help="print the digit with its scores"
    )
    predict.add_argument(
        "--trace", action="store_true", help="print every stage of the forward pass as well"
    )
    trace = commands.add_parser(
        "trace", parents=[common, pictures], help="predict --trace, and what changes would make"
    )
    add_trace_flags(trace)
    explain = commands.add_parser(
        "explain", parents=[common, pictures], help="print which pixels and units made the score"
    )
    add_explain_flags(explain)
    compare = commands.add_parser(
        "compare",
        parents=[common, pictures],
        help="compare the server's runtimes; exit status 1 if one diverges",
    )
    add_compare_flags(compare)
    health = commands.add_parser(
        "health", parents=[common], help="print the server's health; exit status 1 if not serving"
    )
    health.add_argument("--service", default="", help="a service by name; default: the server")
    return parser


if __name__ == "__main__":
    sys.exit(main())
