"""Folders of bundles: `models/<name>/<version>/`."""

import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from export.bundle.manifest import MANIFEST_NAME, MAX_VERSION
from export.bundle.reading import Bundle, open_bundle
from export.errors import BundleError

EXPECTED_VERSION = f"a number from 1 to {MAX_VERSION} in plain digits"
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_LIKE_VERSION = re.compile(r"[+-]?\d[\d.,_+-]*")  # digits of any script; dates and 1.5, too


class Folders(NamedTuple):
    """The folders of a model's versions."""

    versions: list[int]  # ascending
    unusable: list[str]  # names that look like a version but are not valid, ascending


def first_that_exists(folders: Path) -> Path:
    """Return the first folder that exists of several, separated by colons; else the last."""
    listed = [Path(each) for each in str(folders).split(":") if each] or [folders]
    return next((each for each in listed if each.exists()), listed[-1])


def folder_of(models_dir: Path, name: str) -> Path:
    """Return the folder of a model's versions: that of its name in a model repository.

    Or what was given as the repository, if it has versions and no such folder: KServe mounts a
    model so. Its manifests tell whether it is the model of this name.
    """
    folder = models_dir / name
    with suppress(OSError):
        if not folder.is_dir() and any(is_version(each.name) for each in models_dir.iterdir()):
            return models_dir
    return folder


def model_folders(models_dir: Path, name: str) -> Folders:
    """Return the versions of a model in a model repository, and the invalid ones.

    Raises:
        BundleError: the folder can't be read.
    """
    folder = folder_of(models_dir, name)
    try:
        found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return Folders([], [])
    except OSError as error:
        raise BundleError(f"{folder}: can't be read: {error.strerror}") from error
    usable = {each for each in found if is_version(each)}
    unusable = [each for each in found if each not in usable and _LIKE_VERSION.fullmatch(each)]
    return Folders(sorted(map(int, usable)), unusable)


def versions(models_dir: Path, name: str) -> list[int]:
    """Return the versions of a model in a model repository, ascending.

    Raises:
        BundleError: the folder can't be read.
    """
    return model_folders(models_dir, name).versions


def is_version(name: str) -> bool:
    """Tell if a folder is that of a version: its number in plain digits, as str() writes it."""
    return bool(_VERSION.fullmatch(name)) and int(name) <= MAX_VERSION


def find_bundle(models_dir: Path, name: str, version: int | None) -> Bundle:
    """Open a version of a model, the newest if None.

    Raises:
        BundleError: it does not exist (the text names what does), is malformed, or
            its manifest is that of another model or version.
    """
    found, unusable = model_folders(models_dir, name)
    if not found and unusable:
        raise BundleError(
            f"no version of model {name!r} in {models_dir} (folders there: "
            f"{', '.join(map(ascii, unusable))}); expected {EXPECTED_VERSION}"
        )
    if not found:
        models = sorted(path.parent.parent.name for path in models_dir.glob(f"*/*/{MANIFEST_NAME}"))
        there = f"models there: {', '.join(dict.fromkeys(models))}" if models else "no models there"
        raise BundleError(f"no model {name!r} in {models_dir} ({there})")
    if version is not None and version not in found:
        raise BundleError(
            f"no version {version} of model {name!r} in {models_dir} (versions there: "
            f"{', '.join(map(str, found))})"
        )
    wanted = version or found[-1]
    bundle = open_bundle(folder_of(models_dir, name) / str(wanted))
    if (bundle.manifest.name, bundle.manifest.version) != (name, wanted):
        raise BundleError(
            f"{bundle.path / MANIFEST_NAME}: is of {bundle.manifest.name!r} version "
            f"{bundle.manifest.version}, but is in the folder of {name!r} version {wanted}; "
            "move it to its own, or train into a model repository that has the earlier versions"
        )
    return bundle
