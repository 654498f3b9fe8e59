"""What changes from step to step: the learning rate and the strength of the distortions."""

import math
from dataclasses import dataclass

WARM_UP_SHARE = 0.1  # of all steps
TAPER_SHARE = 0.3  # of all steps, at the end


@dataclass(frozen=True)
class Schedule:
    """The values of each step, counted from 0."""

    steps: int
    augmentation_start: float
    augmentation_end: float

    def learning_rate_share(self, step: int) -> float:
        """Return the share of its peak that the learning rate has: warm-up, then cosine to 0."""
        warm_up = max(1, round(self.steps * WARM_UP_SHARE))
        if step < warm_up:
            return (step + 1) / warm_up
        share = (step - warm_up) / max(1, self.steps - warm_up)
        return 0.5 * (1 + math.cos(math.pi * share))

    def augmentation(self, step: int) -> float:
        """Return the strength of the distortions: constant, then linear to its end."""
        start, end = self.augmentation_start, self.augmentation_end
        left = (self.steps - step) / self.steps
        return end + (start - end) * min(1.0, left / TAPER_SHARE)
