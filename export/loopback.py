"""The loopback addresses of this machine."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Tell if a host, a name or an IP address without brackets, is this machine's loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback
