"""Pictures of a digit, of any kind, as the images that the model takes. Needs the extra `cli`."""

from forward_client import extra
from forward_client.errors import PictureError

try:
    from forward_client.pictures.reading import Images, load_images, normalise, read_images
except ModuleNotFoundError as error:
    if error.name not in extra.MODULES:
        raise
    raise ModuleNotFoundError(
        f"{__name__} needs Pillow: {extra.INSTALL}", name=error.name
    ) from error

__all__ = ["Images", "PictureError", "load_images", "normalise", "read_images"]
