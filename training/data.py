"""Datasets as tensors: uint8 images [N, 28, 28] and int64 labels [N], in three splits."""

import hashlib
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.response import addinfourl

import torch
from torch.nn import functional
from torchvision import datasets

from training.errors import DatasetError

IMAGE_SIDE = 28
HELD_OUT_SHARE = 1 / 12  # 5,000 of MNIST's 60,000 training images


@dataclass(frozen=True)
class Split:
    """Images, uint8 [N, 28, 28], and their labels, int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def pixels(self) -> torch.Tensor:
        """Return the images as float32 in 0..1, as every runtime takes them."""
        return self.images.to(torch.float32) / 255


@dataclass(frozen=True)
class Data:
    """A dataset. The held-out split steers training; the test split only reports."""

    name: str
    labels: tuple[str, ...]
    sha256: str  # of the bytes of all images and labels, in their original order
    train: Split
    held_out: Split
    test: Split


class _MeasuredFileHandler(urllib.request.FileHandler):
    """Opens file: URLs like urllib's own, and tells the length, which torchvision reads."""

    def file_open(self, req: urllib.request.Request) -> addinfourl:
        response = super().file_open(req)
        response.length = int(response.headers["Content-length"])  # type: ignore[attr-defined] # as http's has
        return response


def load_mnist(data_dir: Path, mirror: str | None, seed: int) -> Data:
    """Load MNIST through torchvision, which downloads what is missing and checks it.

    Raises:
        DatasetError: it is neither in `data_dir` nor to be downloaded.
    """
    mirrors = [mirror.rstrip("/") + "/"] if mirror else datasets.MNIST.mirrors
    urllib.request.install_opener(urllib.request.build_opener(_MeasuredFileHandler))
    # torchvision names the folder after the class, hence the class of the same name.
    mnist = type("MNIST", (datasets.MNIST,), {"mirrors": mirrors})
    try:
        train, test = (mnist(data_dir, train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError, ValueError) as error:
        raise DatasetError(
            f"MNIST is not in {data_dir} and could not be downloaded from "
            f"{' or '.join(mirrors)}: {str(error).strip()}\n"
            "Two ways out: --mirror URL with a folder of the four original files "
            "(file:///path/to/mnist works), or --dataset digits, which needs no download."
        ) from error
    labels = tuple(str(digit) for digit in range(10))
    return _split_data(
        "mnist", labels, Split(train.data, train.targets), Split(test.data, test.targets), seed
    )


def load_digits(seed: int) -> Data:
    """Load scikit-learn's 1,797 bundled digits, 8x8, brought to MNIST's form: 20x20 in 28x28."""
    from sklearn.datasets import load_digits as load  # noqa: PLC0415 (slow, and for this one alone)

    digits = load()
    pixels = torch.from_numpy(digits.images).to(torch.float32)[:, None] / 16  # 0..16 -> 0..1
    resized = functional.interpolate(pixels, size=20, mode="bilinear")
    padded = functional.pad(resized, [(IMAGE_SIDE - 20) // 2] * 4)[:, 0]
    images = (padded * 255).round().to(torch.uint8)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order[:300], order[300:]
    names = tuple(str(name) for name in digits.target_names)
    return _split_data(
        "digits",
        names,
        Split(images[train], labels[train]),
        Split(images[test], labels[test]),
        seed,
    )


def _split_data(name: str, labels: tuple[str, ...], train: Split, test: Split, seed: int) -> Data:
    digest = hashlib.sha256()
    for split in (train, test):
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    count = round(len(train) * HELD_OUT_SHARE)
    held_out, kept = order[:count], order[count:]
    return Data(
        name=name,
        labels=labels,
        sha256=digest.hexdigest(),
        train=Split(train.images[kept], train.labels[kept]),
        held_out=Split(train.images[held_out], train.labels[held_out]),
        test=test,
    )
