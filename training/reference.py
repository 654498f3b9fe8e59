"""The drift reference of a bundle: what its training images are like, and what it makes of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console

from export.bundle import Bundle, open_bundle
from export.bundle.hashes import describe
from export.bundle.manifest import DRIFT_REFERENCE_FILE
from export.bundle.publishing import write_files, write_manifest
from export.bundle.reference import DriftReference, count_features, write_reference
from export.output import printable
from export.runtimes import open_runner
from training.config import DatasetName, TrainingSettings
from training.data import Data, load
from training.errors import DatasetError, TrainingError

PART_IMAGES = 4096  # that are in memory as float32 at a time


def reference_of(bundle: Bundle, data: Data) -> DriftReference:
    """Return the reference of a bundle whose weights are written, from all training images."""
    runner = open_runner(bundle, "eager", "cpu")

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for images in data.train.images.split(PART_IMAGES):
            pixels = images.numpy() / np.float32(255)
            yield pixels, runner.predict(pixels)

    return count_features(parts(), len(data.labels), data.sha256)


def add_reference(path: Path, settings: TrainingSettings, console: Console) -> None:
    """Add its reference to a bundle that was published without, or renew it; change nothing else.

    Raises:
        TrainingError: the dataset is not the one that the bundle's model was trained on.
        ExportError: the bundle is damaged.
        OSError: it can't be written.
    """
    bundle = open_bundle(path)
    bundle.verify_files()
    expected = bundle.manifest.dataset
    names = {name: name for name in get_args(DatasetName)}
    if expected.name not in names:
        raise TrainingError(
            f"{path}: was trained on {expected.name!r}; expected one of {', '.join(names)}"
        )
    data = load(names[expected.name], settings.data_dir, settings.mirror, check=settings.check_data)
    if data.sha256 != expected.sha256:
        raise DatasetError(
            f"{path}: was trained on the {expected.name} with SHA-256 {expected.sha256}, the one "
            f"here has {data.sha256}; --data-dir or --mirror names another"
        )
    content = write_reference(reference_of(bundle, data))
    kept = [file for file in bundle.manifest.files if file.name != DRIFT_REFERENCE_FILE]
    files = sorted([*kept, describe(DRIFT_REFERENCE_FILE, content)], key=lambda file: file.name)
    write_files(path, {DRIFT_REFERENCE_FILE: content})
    write_manifest(path, bundle.manifest.model_copy(update={"files": tuple(files)}))
    console.print(
        f"{printable(str(path))}: {DRIFT_REFERENCE_FILE} of {len(data.train):,} training images; "
        "the manifest lists it",
        soft_wrap=True,
    )
