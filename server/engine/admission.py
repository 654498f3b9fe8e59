"""Admission control: how many images may wait or run, over all batchers that share it."""

from typing import Protocol

from server.errors import QueueFullError

MIN_RETRY_SECONDS = 0.01
SMOOTHING = 0.1  # weight of the newest run in the mean time of an image


class ImageCounter(Protocol):
    """The images that wait or run; the native transport counts its own in, in its own thread."""

    @property
    def images(self) -> int:
        """Return how many there are."""
        ...

    def acquire(self, images: int) -> bool:
        """Count images in if there is room for all of them; tell if there was."""
        ...

    def release(self, images: int) -> None:
        """Count images out."""
        ...


class LocalCounter:
    """A counter for one thread."""

    def __init__(self, max_images: int) -> None:
        self._max_images = max_images
        self.images = 0

    def acquire(self, images: int) -> bool:
        """Count images in if there is room for all of them; tell if there was."""
        if self.images + images > self._max_images:
            return False
        self.images += images
        return True

    def release(self, images: int) -> None:
        """Count images out."""
        self.images -= images


class AdmissionControl:
    """Bounds the images that wait or run; `counter` has the same limit."""

    def __init__(self, max_images: int, counter: ImageCounter | None = None) -> None:
        self._max_images = max_images
        self._counter = counter or LocalCounter(max_images)
        self._seconds_per_image = 0.0

    @property
    def images(self) -> int:
        """Return how many images wait or run."""
        return self._counter.images

    def acquire(self, images: int) -> None:
        """Admit images.

        Raises:
            QueueFullError: the limit would be exceeded.
        """
        if not self._counter.acquire(images):
            queued = self._counter.images
            seconds = max(self._seconds_per_image * queued, MIN_RETRY_SECONDS)
            raise QueueFullError(images, queued, self._max_images, seconds)

    def release(self, images: int, seconds: float | None = None) -> None:
        """Release images, after a run of that many seconds if they were computed."""
        self._counter.release(images)
        if seconds is not None:
            self._seconds_per_image += SMOOTHING * (seconds / images - self._seconds_per_image)
