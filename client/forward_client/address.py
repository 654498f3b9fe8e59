"""Where a server is: host:port, or the path of a Unix domain socket."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote

MAX_PORT = 65_535
# gRPC's ways to name several servers or to choose how a name is looked up.
_URI = re.compile(r"(dns|ipv4|ipv6):(?://[^/]*/)?/?(.*)")
_SCHEMES = {"dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"}


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server.

    Attributes:
        text: as the user gave it.
        target: as gRPC takes it.
        hosts: names or IP addresses without brackets; none for a socket of this machine.
        is_balanced: whether it may name several servers, and calls go to each in turn.
    """

    text: str
    target: str
    hosts: tuple[str, ...]
    is_balanced: bool = False


def parse_address(text: str) -> Address:
    """Return the address that a text gives: host:port, [IPv6]:port, or unix:/path.

    It may also be one of gRPC's own: dns:///host:port, ipv4:host:port,host:port (ipv6: alike), or
    unix-abstract:name.

    Raises:
        ValueError: it is not an address; the text says what was expected.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "unix-abstract" and rest and not _is_port(rest):
        return Address(text, text, ())
    if scheme == "unix" and not _is_port(rest):
        return Address(text, f"unix:{quote(_path(text, rest))}", ())
    found = _URI.fullmatch(text)
    if found and not _is_port(rest):
        listed = found[2].split(",") if scheme != "dns" else [found[2]]
        return Address(text, text, tuple(_host(each, text) for each in listed), is_balanced=True)
    host = _host(text, text)
    # A host with the name of a scheme: dns:/// tells gRPC that it is a host.
    return Address(text, f"dns:///{text}" if scheme in _SCHEMES else text, (host,))


def _host(text: str, given: str) -> str:
    """Return the host of host:port."""
    if "://" in text:
        scheme = text.partition("://")[0]
        raise _error(given, f"without {scheme + '://'!r}")
    if ":" not in text:
        raise _error(given)
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ip(host, 6):
            raise _error(given, "with an IPv6 address in the brackets")
    elif _is_ip(text, 6) or ":" in host:
        raise _error(given, "with brackets around an IPv6 address, as in [::1]:8001")
    elif not re.fullmatch(r"[^\s/@?#\[\]%]+", host):
        raise _error(given, "or unix:/path/of/a/socket")
    if not _is_port(port) or not 1 <= int(port) <= MAX_PORT:
        raise _error(given, f"with a port from 1 to {MAX_PORT}")
    return host


def _error(given: str, form: str = "") -> ValueError:
    expected = f"host:port, {form}" if form else "host:port"
    return ValueError(f"expected {expected}, got {given!r}")


def _path(text: str, rest: str) -> bytes:
    path = rest.removeprefix("//")  # unix:///path, as in a URL
    if not path or "\0" in path or (path != rest and not path.startswith("/")):
        raise ValueError(f"expected unix:/path/of/a/socket, got {text!r}")
    return path.encode(errors="surrogateescape")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PORT))


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Tell if a host is this machine; names other than localhost are not resolved."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified  # 0.0.0.0 reaches this machine, too
