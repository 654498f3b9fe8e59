"""Where to listen: the forms of --host, and the addresses that it stands for."""

import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from server.errors import StartError

EXPECTED = "expected a name or an IP address of this machine"
UNIX_PREFIX = "unix:"
MAX_PATH_BYTES = 107  # sun_path of Linux has 108, the last of them 0
ANSWER_SECONDS = 1.0
# A port that is free on one address may be taken on another; some such draw is free on all.
TRIES = 20
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 (what they mean, not where to listen by default)


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address, with the scope that a link-local one needs."""

    family: socket.AddressFamily
    ip: str

    def at(self, port: int) -> str:
        """Return the address with a port, as in a URL."""
        return f"[{self.ip}]:{port}" if self.family == socket.AF_INET6 else f"{self.ip}:{port}"

    def bind(self, port: int) -> socket.socket:
        """Return a socket that is bound, and does not listen yet."""
        bound = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.family == socket.AF_INET6:  # IPv4 has an address of its own in the list
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            flags = socket.AI_NUMERICHOST
            # The form of a socket address depends on its family: (ip, port[, flow, scope]).
            (*_, full), *_ = socket.getaddrinfo(self.ip, port, self.family, flags=flags)
            bound.bind(full)
        except OSError:
            bound.close()
            raise
        return bound


def parse_host(text: str) -> str:
    """Return a host in its plain form: no brackets around IPv6, unix:PATH for a socket.

    Raises:
        ValueError: it is none; the text says what was expected.
    """
    if text.startswith(UNIX_PREFIX):
        return UNIX_PREFIX + str(_parse_path(text))
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return host
    if "/" in host:
        raise ValueError(f"{EXPECTED}, or unix:/path/of/a/socket")
    if ":" in host:
        raise ValueError(f"{EXPECTED}, without a port, which is a setting of its own")
    if not re.fullmatch(r"[^\s\[\]%@*]+", host):
        raise ValueError(EXPECTED)
    return host


def _parse_path(text: str) -> Path:
    path = text.removeprefix(UNIX_PREFIX)
    if path.startswith("//"):  # unix:///path, as in a URL
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError("expected unix:/path/of/a/socket or unix:///path/of/a/socket")
    if not path or "\0" in path or path.endswith("/"):
        raise ValueError("expected unix:/path/of/a/socket")
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ValueError(f"expected a path of at most {MAX_PATH_BYTES} bytes")
    return Path(path)


def unix_path(host: str) -> Path | None:
    """Return the path of a host that is a Unix domain socket, None of one that is not."""
    return Path(host.removeprefix(UNIX_PREFIX)) if host.startswith(UNIX_PREFIX) else None


def is_wildcard(host: str) -> bool:
    """Tell if a host stands for every interface."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False


def addresses_of(host: str) -> Sequence[Address]:
    """Return all addresses that a host stands for, those of IPv6 if the machine has it.

    gRPC would take `localhost` for both loopbacks and 0.0.0.0 for every interface of both kinds,
    whatever /etc/hosts says: so it is for the metrics, too.

    Raises:
        OSError: its name can't be looked up.
    """
    if host.lower().rstrip(".") == "localhost":
        ips = ["127.0.0.1", "::1"]
    else:
        known = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        ips = [socket.getnameinfo(full, numeric)[0] for *_, full in known]
    if any(map(is_wildcard, ips)):
        return [_address(ip) for ip in WILDCARDS if ip != "::" or _has_ipv6("::")]
    found = [_address(ip) for ip in dict.fromkeys(ips)]
    usable = [each for each in found if each.family == socket.AF_INET or _has_ipv6("::1")]
    return usable or found


def _address(ip: str) -> Address:
    return Address(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)


def _has_ipv6(ip: str) -> bool:
    try:
        _address(ip).bind(0).close()
    except OSError:
        return False
    return True


def bind_all(host: str, port: int, what: str, remedy: str) -> list[tuple[Address, socket.socket]]:
    """Return a bound socket for each address of a host, all with one port; for 0, a free one.

    Raises:
        StartError: one of them can't be bound, and so none is; the text names it.
    """
    try:
        addresses = addresses_of(host)
    except OSError as error:
        raise _refusal(what, f"{host}:{port}", error, remedy) from error
    for tries_left in reversed(range(TRIES)):
        with ExitStack() as bound:
            sockets: list[tuple[Address, socket.socket]] = []
            chosen = port
            for address in addresses:
                try:
                    each = bound.enter_context(address.bind(chosen))
                except OSError as error:
                    if port == 0 and chosen and tries_left and error.errno == errno.EADDRINUSE:
                        break
                    raise _refusal(what, address.at(chosen), error, remedy) from error
                chosen = each.getsockname()[1]
                sockets.append((address, each))
            else:
                bound.pop_all()
                return sockets
    raise AssertionError("the last try returns or raises")


def _refusal(what: str, address: str, error: OSError, remedy: str) -> StartError:
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return StartError(f"can't listen for {what} on {address}: {reason}; {remedy}")


def claim_socket(path: Path, remedy: str) -> None:
    """Prepare the path of a Unix domain socket: remove the file that a killed server left behind.

    Raises:
        StartError: somebody listens there, or there is something else.
    """
    where = f"can't listen for gRPC on {UNIX_PREFIX}{path}"
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise StartError(f"{where}: its folder is not there; make it, or {remedy}") from None
        return
    except OSError as error:
        raise StartError(f"{where}: {error.strerror}; {remedy}") from error
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{where}: there is a file that is no socket; {remedy}")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(ANSWER_SECONDS)
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:  # nobody listens any more
            with suppress(FileNotFoundError):
                path.unlink()
        except OSError as error:
            raise StartError(f"{where}: {error.strerror}; {remedy}") from error
        else:
            raise StartError(f"{where}: another process listens there; {remedy}")
