"""Datasets as tensors: uint8 images [N, 28, 28] and int64 labels [N], in three splits."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from torchvision import datasets

from training.config import SIDE, DatasetName
from training.originals import Originals

IMAGE_SIDE = SIDE
HELD_OUT_SHARE = 1 / 12  # the last of the training images: 5,000 of MNIST's 60,000
FASHION_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


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

    def mean_and_deviation(self) -> tuple[float, float]:
        """Return mean and standard deviation of all pixels in 0..1, from exact counts."""
        counts = torch.bincount(self.images.flatten(), minlength=256).tolist()
        total = sum(counts)
        mean = sum(value * count for value, count in enumerate(counts)) / total
        square = sum(value**2 * count for value, count in enumerate(counts)) / total
        return mean / 255, math.sqrt(square - mean**2) / 255

    def to(self, device: str) -> "Split":
        """Return the split with its tensors on a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A dataset. Choices are made by the held-out split; the test split is only for reports."""

    name: str
    labels: tuple[str, ...]
    sha256: str  # of the bytes of all images and labels, in their original order
    train: Split
    held_out: Split
    test: Split


def load(name: DatasetName, data_dir: Path, mirror: str | None, *, check: bool = True) -> Data:
    """Load a dataset. The last twelfth of the training images is held out.

    `check` compares the files, also those already in `data_dir`, with their published MD5 sums.

    Raises:
        DatasetError: it is not in `data_dir` and can't be downloaded, or it is damaged.
    """
    if name == "digits":
        return _load_digits()
    dataset = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    originals = Originals(
        dataset=name,
        folder=data_dir / dataset.__name__ / "raw",
        resources=dataset.resources,
        mirrors=[mirror] if mirror else dataset.mirrors,
        check=check,
    )
    train, test = (
        Split(torch.tensor(images), torch.tensor(labels, dtype=torch.int64))
        for images, labels in map(originals.read, ("train", "t10k"))
    )
    labels = tuple(str(digit) for digit in range(10)) if name == "mnist" else FASHION_LABELS
    return _split_data(name, labels, train, test)


def _load_digits() -> Data:
    """Load scikit-learn's 1,797 bundled digits, 8x8, scaled to MNIST's format: 20x20 in 28x28."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow, and only this dataset needs it)

    digits = load_digits()
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
    )


def _split_data(name: str, labels: tuple[str, ...], train: Split, test: Split) -> Data:
    digest = hashlib.sha256()
    for split in (train, test):
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    kept = len(train) - round(len(train) * HELD_OUT_SHARE)
    return Data(
        name=name,
        labels=labels,
        sha256=digest.hexdigest(),
        train=Split(train.images[:kept], train.labels[:kept]),
        held_out=Split(train.images[kept:], train.labels[kept:]),
        test=test,
    )
