"""Admission control: how many images may wait or run, over all batchers that share it."""

from server.errors import QueueFullError

MIN_RETRY_SECONDS = 0.01
SMOOTHING = 0.1  # weight of the newest run in the mean time of an image


class AdmissionControl:
    """Bounds the images that wait or run."""

    def __init__(self, max_images: int) -> None:
        self._max_images = max_images
        self._seconds_per_image = 0.0
        self.images = 0

    def acquire(self, images: int) -> None:
        """Admit images.

        Raises:
            QueueFullError: the limit would be exceeded.
        """
        if self.images + images > self._max_images:
            seconds = max(self._seconds_per_image * self.images, MIN_RETRY_SECONDS)
            raise QueueFullError(images, self.images, self._max_images, seconds)
        self.images += images

    def release(self, images: int, seconds: float | None = None) -> None:
        """Release images, after a run of that many seconds if they were computed."""
        self.images -= images
        if seconds is not None:
            self._seconds_per_image += SMOOTHING * (seconds / images - self._seconds_per_image)
