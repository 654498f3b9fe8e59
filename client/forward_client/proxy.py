"""The proxy of a call, from the usual environment variables.

gRPC's own rules differ: it reads lower-case names only, no "*", and proxies localhost as well.
"""

import ipaddress
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from forward_client.address import Address, is_loopback

# The first that is set counts, as in gRPC; an empty value means no proxy.
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that the environment names.

    Attributes:
        variable: the variable that names it.
        url: its URL; it may hold a password.
        redacted: the same without user and password.
        is_usable: whether gRPC supports it: CONNECT over plain HTTP.
    """

    variable: str
    url: str = field(repr=False)
    redacted: str
    is_usable: bool

    def __str__(self) -> str:
        """Return its description for an error message."""
        return f"the proxy {self.redacted} ({self.variable})"


def proxy_for(address: Address, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy of calls to a server, None for calls without one.

    Calls to this machine itself never have one.
    """
    if not address.hosts or any(map(is_loopback, address.hosts)):
        return None
    variable, url = _first(PROXY_VARIABLES, environment)
    exceptions = _first(NO_PROXY_VARIABLES, environment)[1]
    if not url or all(_bypasses(host, exceptions) for host in address.hosts):
        return None
    return _parse(variable, url)


def channel_options(proxy: Proxy | None) -> tuple[tuple[str, str | int], ...]:
    """Return the options of gRPC that make it take this proxy, or none whatever it finds."""
    if proxy and proxy.is_usable:
        return (("grpc.http_proxy", proxy.url),)
    return (("grpc.enable_http_proxy", 0),)


def _first(names: tuple[str, ...], environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the first variable that is set, in lower case or else in capitals, and its value."""
    for name in names:
        for spelling in (name, name.upper()):
            # In a CGI script HTTP_PROXY is what a caller sent as a header "Proxy".
            if spelling == "HTTP_PROXY" and "REQUEST_METHOD" in environment:
                continue
            if spelling in environment:
                return spelling, environment[spelling].strip()
    return "", ""


def _bypasses(host: str, exceptions: str) -> bool:
    """Tell if no_proxy lists a host: by name, domain, IP address, network, or with "*"."""
    entries = [entry.strip().removeprefix("*.").strip("[]") for entry in exceptions.split(",")]
    if "*" in entries or any(_is_in_network(host, entry) for entry in entries):
        return True
    return bool(urllib.request.proxy_bypass(host, {"no": ",".join(entries)}))


def _is_in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # one of them is a name
        return False


def _parse(variable: str, text: str) -> Proxy:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # an invalid port raises
    except ValueError:
        return Proxy(variable, "", "that is not a URL", is_usable=False)
    place = parts.netloc.rpartition("@")[2]
    redacted = f"{parts.scheme}://{place}"
    is_usable = parts.scheme == "http" and bool(host)
    return Proxy(variable, f"{parts.scheme}://{parts.netloc}", redacted, is_usable)
