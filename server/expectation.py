"""How many requests the next group of a scheduler is expected to have: its rules 2, 3 and 5."""

MOST_GROUPS_BETWEEN_PROBES = 32


class Expectation:
    """Learns from the requests in flight, and from the groups that they came in.

    Probes are groups that wait a moment longer than they are expected to; they
    get rarer where they find nobody.
    """

    def __init__(self) -> None:
        self.requests = 1  # expected of the next group
        self.in_flight = 0
        self._most_in_flight = 0  # since the last group was taken
        self._stuck = 0  # answers that did not leave while a group was waited for
        self._groups_between_probes = self._groups_to_probe = 1

    @property
    def is_probe_due(self) -> bool:
        """Tell whether the next group shall be one."""
        return self._groups_to_probe <= 0

    def arrive(self) -> None:
        """Count a request in: it is in flight until it departs."""
        self.in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self.in_flight)

    def depart(self) -> None:
        """Count a request out, whose answer has left."""
        self.in_flight -= 1
        self._stuck = min(self._stuck, self.in_flight)

    def learn(self, came: int, *, is_ample: bool) -> None:
        """Set what is expected of the next group by those who came for this one."""
        if came < self.requests and not is_ample:
            self._stuck = max(0, self.in_flight - came)  # the wait was in vain
        elif self.is_probe_due and came > 1:
            found_more = came > self.requests
            between = 1 if found_more else 2 * self._groups_between_probes
            self._groups_between_probes = min(between, MOST_GROUPS_BETWEEN_PROBES)
            self._groups_to_probe = self._groups_between_probes
        self._groups_to_probe -= 1
        self.renew()

    def renew(self) -> None:
        """Expect as many as were in flight at a time since this was last called, but the stuck."""
        self.requests = max(1, self._most_in_flight - self._stuck)
        self._most_in_flight = self.in_flight
