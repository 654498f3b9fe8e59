"""The environment variables of `python -m client`."""

import re
from collections.abc import Mapping

PREFIX = "FORWARD_CLIENT_"
# What Kubernetes sets in every pod for a service named forward-client, or forward-client-anything.
_LINK_NAME = re.compile(
    rf"{PREFIX}(\w+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
# No setting of the client is a port alone: any other value is a typo.
_LINK_PORT_NAME = re.compile(rf"{PREFIX}(\w+_)?PORT")
_LINK_PORT_VALUE = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


def client_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the client's variables that are set: not empty, and none of Kubernetes'."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIX) and value and not _is_service_link(name, value)
    }


def _is_service_link(name: str, value: str) -> bool:
    if _LINK_NAME.fullmatch(name):
        return True
    return bool(_LINK_PORT_NAME.fullmatch(name) and _LINK_PORT_VALUE.fullmatch(value))
