"""How many requests the next batch is expected to hold: rules 2, 3 and 5 of the batcher."""

MAX_BATCHES_BETWEEN_PROBES = 32


class ConcurrencyEstimator:
    """Estimates it from the requests in flight and from the batches that they came in.

    Probes are batches that wait a moment longer than expected; they become rarer
    where they find nothing.
    """

    def __init__(self) -> None:
        self.requests = 1  # expected in the next batch
        self.in_flight = 0
        self._most_in_flight = 0  # since the last batch was formed
        self._stalled = 0  # requests in flight that did not join the batch that waited for them
        self._batches_between_probes = self._batches_to_probe = 1

    @property
    def is_probe_due(self) -> bool:
        """Tell whether the next batch is one."""
        return self._batches_to_probe <= 0

    def arrive(self) -> None:
        """Count a request in: it is in flight until `complete`."""
        self.in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self.in_flight)

    def complete(self) -> None:
        """Count a request out: its response has been sent."""
        self.in_flight -= 1
        self._stalled = min(self._stalled, self.in_flight)

    def learn(self, arrived: int, *, is_ample: bool) -> None:
        """Set what is expected in the next batch by the requests that arrived for this one."""
        if arrived < self.requests and not is_ample:
            self._stalled = max(0, self.in_flight - arrived)  # the wait expired
        elif self.is_probe_due and arrived > 1:
            found_more = arrived > self.requests
            between = 1 if found_more else 2 * self._batches_between_probes
            self._batches_between_probes = min(between, MAX_BATCHES_BETWEEN_PROBES)
            self._batches_to_probe = self._batches_between_probes
        self._batches_to_probe -= 1
        self.renew()

    def renew(self) -> None:
        """Expect the peak concurrency since the last call, less the stalled requests."""
        self.requests = max(1, self._most_in_flight - self._stalled)
        self._most_in_flight = self.in_flight
