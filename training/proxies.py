"""Proxies for downloads: those of urllib, but none for this machine."""

import urllib.request
from urllib.response import addinfourl

from export.loopback import is_loopback


class ProxyHandler(urllib.request.ProxyHandler):
    """Uses the proxies of the usual variables, as urllib does, but none for the loopback."""

    def proxy_open(
        self,
        req: urllib.request.Request,
        proxy: str,
        type: str,  # noqa: A002 (urllib's name)
    ) -> addinfourl | None:
        """Send a request to a proxy, or return None to have it sent directly."""
        host = req.host or ""
        name = host.partition("]")[0].removeprefix("[") if "]" in host else host.partition(":")[0]
        if is_loopback(name):
            return None
        return super().proxy_open(req, proxy, type)
