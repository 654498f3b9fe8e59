"""Admission control: how many images may wait or run, over all batchers that share it."""

from typing import Protocol

from server.errors import QueueFullError

MIN_RETRY_SECONDS = 0.01
SMOOTHING = 0.1  # weight of the newest run in the mean time of an image


class ImageCounter(Protocol):
    """The images that wait or run; the native transport counts its own in, from its thread."""

    @property
    def value(self) -> int:
        """Return how many there are."""
        ...

    def add(self, images: int) -> None:
        """Count images in, or out if they are negative."""
        ...


class LocalCounter:
    """A counter for one thread."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, images: int) -> None:
        """Count images in, or out if they are negative."""
        self.value += images


class AdmissionControl:
    """Bounds the images that wait or run."""

    def __init__(self, max_images: int, counter: ImageCounter | None = None) -> None:
        self.max_images = max_images
        self._counter = counter or LocalCounter()
        self._seconds_per_image = 0.0

    @property
    def images(self) -> int:
        """Return how many images wait or run."""
        return self._counter.value

    def acquire(self, images: int) -> None:
        """Admit images.

        Raises:
            QueueFullError: the limit would be exceeded.
        """
        queued = self._counter.value
        if queued + images > self.max_images:
            seconds = max(self._seconds_per_image * queued, MIN_RETRY_SECONDS)
            raise QueueFullError(images, queued, self.max_images, seconds)
        self._counter.add(images)

    def release(self, images: int, seconds: float | None = None) -> None:
        """Release images, after a run of that many seconds if they were computed."""
        self._counter.add(-images)
        if seconds is not None:
            self._seconds_per_image += SMOOTHING * (seconds / images - self._seconds_per_image)
