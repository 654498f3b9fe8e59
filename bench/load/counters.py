"""What the server itself has counted, read from its metrics."""

from dataclasses import dataclass
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_SECONDS = 10
SERVICE = "forward.v1.ForwardService"


@dataclass(frozen=True)
class Counters:
    """Sums since the start."""

    handled: dict[tuple[str, str], int]  # calls by method and status
    images: int  # computed

    def since(self, before: "Counters") -> "Counters":
        """Return what was counted since."""
        return Counters(
            {key: count - before.handled.get(key, 0) for key, count in self.handled.items()},
            self.images - before.images,
        )

    def calls(self, status: str, method: str | None = None) -> int:
        """Return the calls that ended with a status, of one method or all."""
        return sum(
            count
            for (each, code), count in self.handled.items()
            if code == status and method in (None, each)
        )

    def failures(self) -> dict[str, int]:
        """Return the calls that ended with an error, but those whose caller left."""
        codes = {code for _, code in self.handled} - {"OK", "CANCELLED"}
        return {code: count for code in sorted(codes) if (count := self.calls(code))}


def read_counters(metrics_port: int) -> Counters:
    """Read the metrics of a server."""
    url = f"http://127.0.0.1:{metrics_port}/metrics"
    with urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        text = response.read().decode()
    handled: dict[tuple[str, str], int] = {}
    images = 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "forward_images_total":
                images += int(sample.value)
            elif sample.name == "grpc_server_handled_total":
                key = (sample.labels["grpc_method"], sample.labels["grpc_code"])
                handled[key] = handled.get(key, 0) + int(sample.value)
    return Counters(handled, images)
