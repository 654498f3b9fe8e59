"""The original files of MNIST and Fashion-MNIST: found or downloaded, checked, read.

They are stored where torchvision stores them, each unpacked beside its .gz; names, mirrors
and MD5 sums of the .gz files are torchvision's. Files that exist already are checked, too:
an interrupted download, a full disk or a wrong copy leaves files that look right.
"""

import gzip
import hashlib
import struct
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from training.config import CLASSES, SIDE
from training.download import DownloadError, download
from training.errors import DatasetError

MIN_IMAGES = {"train": 12, "t10k": 1}  # of 12 one is held out
# MD5 of a published .gz -> MD5 of its content, computed from those files. For Fashion-MNIST
# none are known: its unpacked files are compared with the .gz beside them.
UNPACKED_MD5 = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": "6bbc9ace898e44ae57da46a324031adb",
    "d53e105ee54ea40749a09fcbcd1e9432": "a25bea736e30d166cdddb491f175f624",
    "9fb629c4189551a2d022fa330f9573f3": "2646ac647ad5339dbf082846283269ea",
    "ec29112dd5afa0611ce80d1b7f02629c": "27ae3e4e09519cfbb04c329615203637",
}
OWN_DATA = "--no-check-data accepts your own data"


@dataclass(frozen=True)
class Originals:
    """The four files of a dataset, in a folder or behind mirrors."""

    dataset: str
    folder: Path
    resources: Sequence[tuple[str, str]]  # name of each .gz, and its published MD5
    mirrors: Sequence[str]  # URLs of folders, tried in turn
    check: bool  # against the published MD5; False for other data of the same form

    def read(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the images, uint8 [N, 28, 28], and labels, uint8 [N], of "train" or "t10k".

        Raises:
            DatasetError: they are not available, or not valid.
        """
        (images_path, images), (labels_path, labels) = (
            self._array(f"{part}-images-idx3-ubyte", dimensions=3),
            self._array(f"{part}-labels-idx1-ubyte", dimensions=1),
        )
        least = MIN_IMAGES[part]
        if images.shape[1:] != (SIDE, SIDE) or len(images) < least:
            raise DatasetError(
                f"{images_path}: expected images [N, {SIDE}, {SIDE}], {least} or more, "
                f"got {list(images.shape)}"
            )
        if len(labels) != len(images) or labels.max() >= CLASSES:
            raise DatasetError(
                f"{labels_path}: expected {len(images):,} labels from 0 to {CLASSES - 1}, as many "
                f"as images, got {len(labels):,} up to {labels.max(initial=0)}"
            )
        return images, labels

    def _array(self, name: str, dimensions: int) -> tuple[Path, np.ndarray]:
        path = self.folder / name
        published = dict(self.resources)[f"{name}.gz"]
        data = self._file(path, path.with_name(f"{name}.gz"), published)
        return path, _parse(path, data, dimensions)

    def _file(self, path: Path, packed_path: Path, published: str) -> bytes:
        """Return the content of the unpacked file; unpack or download it if it is missing."""
        if path.exists():
            data = _read(path)
            if self.check:
                _check_unpacked(path, data, packed_path, published)
            return data
        packed = _read(packed_path) if packed_path.exists() else b""
        if not packed or (self.check and _md5(packed) != published):
            packed = self._download(packed_path, published)
            _write(packed_path, packed)
        data = _unpack(packed_path, packed)
        _write(path, data)
        return data

    def _download(self, path: Path, published: str) -> bytes:
        failures = []
        for mirror in self.mirrors:
            url = f"{mirror.rstrip('/')}/{path.name}"
            try:
                data = download(url)
            except DownloadError as error:
                failures.append(f"{url}: {error}")
                continue
            if not self.check or _md5(data) == published:
                return data
            page = (
                "a web page, perhaps of a proxy or a login, " if data.lstrip()[:1] == b"<" else ""
            )
            failures.append(
                f"{url}: expected the file with MD5 {published}, got {page}{len(data):,} bytes "
                f"with MD5 {_md5(data)}; {OWN_DATA}"
            )
        there = f"; the {path.name} there is damaged" if path.exists() else ""
        lines = "\n".join(failures)
        raise DatasetError(
            f"{self.dataset} is not in {self.folder}, and {path.name} could not be downloaded"
            f"{there}:\n{lines}\n"
            "Two ways out: --mirror URL with a folder of the four original files "
            "(file:///path/to/mnist works), or --dataset digits, which needs no download."
        )


def _check_unpacked(path: Path, data: bytes, packed_path: Path, published: str) -> None:
    """Raise DatasetError unless the file is the content of the published .gz."""
    expected = UNPACKED_MD5.get(published)
    if expected is None:
        packed = _read(packed_path) if packed_path.exists() else b""
        if _md5(packed) != published:
            raise DatasetError(
                f"{path}: can't be checked: only the MD5 of its .gz is published, and "
                f"{packed_path} with MD5 {published} does not exist. Put it there, or delete the "
                f"unpacked file to download both; {OWN_DATA}"
            )
        expected = _md5(_unpack(packed_path, packed))
    if _md5(data) != expected:
        raise DatasetError(
            f"{path}: expected the published file, MD5 {expected}, got {len(data):,} bytes with "
            f"MD5 {_md5(data)}: it was damaged, half written or replaced. Delete it to unpack it "
            f"from {packed_path.name} or download it again; {OWN_DATA}"
        )


def _parse(path: Path, data: bytes, dimensions: int) -> np.ndarray:
    """Return the array in a file of MNIST's format: 0, 0, 8 for bytes, dimensions, sizes."""
    begin = bytes((0, 0, 8, dimensions))
    head = len(begin) + 4 * dimensions  # a size has 4 bytes
    if data[: len(begin)] != begin or len(data) < head:
        raise DatasetError(
            f"{path}: expected a file of MNIST's format that begins with {begin.hex(' ')}, "
            f"got {len(data):,} bytes, {data[:4].hex(' ') or 'none'} first"
        )
    shape = struct.unpack_from(f">{dimensions}I", data, len(begin))
    if len(data) - head != prod(shape):
        raise DatasetError(
            f"{path}: expected {list(shape)} bytes by its header, {prod(shape):,} in all, "
            f"got {len(data) - head:,}"
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def _unpack(path: Path, packed: bytes) -> bytes:
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(
            f"{path}: can't be unpacked: {error}; delete it or replace it"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}: can't be read: {error.strerror}; fix that or move it away"
        ) from error


def _write(path: Path, data: bytes) -> None:
    """Write a file in one step: an interrupt leaves none, two trainings write the same."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as temporary:
            new = Path(temporary) / path.name
            new.write_bytes(data)
            new.replace(path)
    except OSError as error:
        raise DatasetError(
            f"{path}: can't be written: {error.strerror}; --data-dir names another folder"
        ) from error


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
