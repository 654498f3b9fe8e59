"""Metrics of the served model: what it is, and how it came to be served."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class ModelLabels:
    """What names the served model; the fields are the labels, in their order."""

    model: str
    version: str
    runtime: str
    device: str
    provider: str
    precision: str
    manifest_sha256: str


class _ModelInfo(Collector):
    """The gauge that names the served model: always one series, whatever was served before."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.model: ModelLabels | None = None
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        family = GaugeMetricFamily(
            "forward_model_info",
            "The served model; always 1.",
            labels=[each.name for each in fields(ModelLabels)],
        )
        if self.model is not None:
            family.add_metric(astuple(self.model), 1)
        yield family


class ModelMetrics:
    """The metrics of the served model and of its replacements."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._info = _ModelInfo(registry)
        text = "Versions that took the place of another, and that failed to."
        self._reloads = Counter("forward_model_reloads", text, ("result",), registry=registry)
        text = "Whether the version is served that should be."
        self._last_reload_successful = Gauge(
            "forward_model_last_reload_successful", text, registry=registry
        )
        text = "When the served version was loaded."
        self._last_reload_success = Gauge(
            "forward_model_last_reload_success_timestamp_seconds", text, registry=registry
        )
        text = "Largest error of the self-check when the served version was loaded, over its bound."
        self._self_check = Gauge("forward_self_check_error_ratio", text, registry=registry)
        for result in ("success", "failure"):
            self._reloads.labels(result)

    def set_model(self, model: ModelLabels, self_check_ratio: float) -> None:
        """Publish which model is served from now on, by what."""
        self._info.model = model
        self._self_check.set(self_check_ratio)
        self._last_reload_success.set_to_current_time()

    def record_poll(self, *, loaded: bool, failed: int, is_well: bool) -> None:
        """Count what a poll of the repository did."""
        self._reloads.labels("success").inc(loaded)
        self._reloads.labels("failure").inc(failed)
        self._last_reload_successful.set(is_well)
