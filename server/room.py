"""The room for images that wait or run, over all schedulers that share it."""

from server.errors import QueueFullError

LEAST_RETRY_SECONDS = 0.01
SMOOTHING = 0.1  # weight of the newest run in the mean time of an image


class QueueRoom:
    """Bounds the images that wait or run."""

    def __init__(self, max_images: int) -> None:
        self._max_images = max_images
        self._seconds_per_image = 0.0
        self.images = 0

    def take(self, images: int) -> None:
        """Let images in.

        Raises:
            QueueFullError: there is no room for that many.
        """
        if self.images + images > self._max_images:
            seconds = max(self._seconds_per_image * self.images, LEAST_RETRY_SECONDS)
            raise QueueFullError(images, self.images, self._max_images, seconds)
        self.images += images

    def leave(self, images: int, seconds: float | None = None) -> None:
        """Let images out, after a run that took so long if they were computed."""
        self.images -= images
        if seconds is not None:
            self._seconds_per_image += SMOOTHING * (seconds / images - self._seconds_per_image)
