"""Pictures, by the reader of the client: as `forward-client predict` sends them."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pyarrow.fs import LocalFileSystem

from deploy.ray.score.chunks import BadRow, Chunk, part_name
from deploy.ray.score.readers.pieces import READ_BYTES, Piece, Reading
from deploy.ray.score.sources import SourceFile


def plan(files: Sequence[SourceFile], reading: Reading) -> list[Piece]:
    """Return the pieces of all pictures: a chunk each."""
    step = reading.chunk_images
    groups = [tuple(files[at : at + step]) for at in range(0, len(files), step)]
    return [Piece(group, 0, len(group)) for group in groups]


def read(piece: Piece, reading: Reading) -> Iterator[Chunk]:
    """Yield the chunk of some pictures.

    Raises:
        OSError: a file can't be read.
    """
    images, sources, bad = [], [], []
    for file in piece.files:
        image = _read_one(file, reading)
        if isinstance(image, str):
            bad.append(BadRow(file.path, 0, image))
        else:
            images.append(image)
            sources.append(file.path)
    shape = images[0].shape if images else reading.checker.shape
    pixels = np.array(images, np.uint8).reshape(-1, *shape)
    if reason := images and reading.checker.wrong_image(pixels[0]):  # a model of other images
        bad += [BadRow(source, 0, str(reason)) for source in sources]
        pixels, sources = pixels[:0], []
    part = part_name(piece.file.number, 0)
    yield reading.checker.chunk(part, pixels, sources, [0] * len(sources), bad)


def _read_one(file: SourceFile, reading: Reading) -> np.ndarray | str:
    """Return the image of a picture, or why there is none."""
    path = reading.path(file)
    if isinstance(reading.location.filesystem, LocalFileSystem):
        image = _image(Path(path))
        if isinstance(image, str):
            reading.check_readable(file)
        return image
    with tempfile.NamedTemporaryFile(suffix=Path(path).suffix) as local:
        with reading.location.filesystem.open_input_stream(path) as stream:
            while data := stream.read(READ_BYTES):
                local.write(data)
        local.flush()
        return _image(Path(local.name))


def _image(path: Path) -> np.ndarray | str:
    # The extra cli of the client: only who has pictures needs it.
    from forward_client.pictures import PictureError, read_images  # noqa: PLC0415

    try:
        pixels: np.ndarray = read_images(path).pixels[0]
    except PictureError as error:
        return str(error).removeprefix(f"{path}: ")
    return pixels
