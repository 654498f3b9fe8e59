"""The gauge that says which releases run."""

import platform
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Gauge

UNKNOWN = "unknown"  # of what is there without a record of its installation


def publish_build_info(registry: CollectorRegistry, *, has_native: bool) -> None:
    """Publish the releases of the server and of what it runs on, always 1."""
    labels = {
        "version": _version("forward-server") or UNKNOWN,
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime") or _version("onnxruntime-gpu"),
        "grpcio": _version("grpcio"),
        "native": (_version("forward-native") or UNKNOWN) if has_native else "",
    }
    text = "Releases of the server and of what it runs on; always 1."
    info = Gauge("forward_build_info", text, tuple(labels), registry=registry)
    info.labels(**labels).set(1)


def _version(distribution: str) -> str:
    """Return the version of a distribution; "" if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
