"""Command line of the export package: `python -m export verify models/mnist/1`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from rich.console import Console

from export.bundle import Bundle, open_bundle
from export.errors import HOW_TO_GET_TORCH, BundleError, ExportError, ImagesError
from export.report import parity_table
from export.verify import has_train_extra, verify_parity


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        bundle = open_bundle(options.path)
        bundle.verify_files()
        if unlisted := bundle.unlisted_files():
            raise BundleError(f"{bundle.path}: the manifest does not list {', '.join(unlisted)}")
        console.print(f"{len(bundle.manifest.files)} files match their hashes.")
        if not has_train_extra() and options.images is None:
            print(f"Parity not run: it needs torch; {HOW_TO_GET_TORCH}.")
            return 0
        images = None if options.images is None else _read_images(options.images, bundle)
        console.print(parity_table(verify_parity(bundle, images)))
    except ExportError as error:
        print(f"python -m export: {error}", file=sys.stderr)
        return 1
    return 0


def _read_images(path: Path, bundle: Bundle) -> np.ndarray:
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ImagesError(f"{path}: can't be read as a NumPy file: {error}") from error
    manifest = bundle.manifest
    if not isinstance(images, np.ndarray):
        raise ImagesError(f"{path}: expected one array, got an archive of several")
    if images.shape[1:] != manifest.input_shape or images.dtype not in (np.uint8, np.float32):
        shape = ", ".join(map(str, manifest.input_shape))
        raise ImagesError(
            f"{path}: expected uint8 or float32 of shape [N, {shape}], "
            f"got {images.dtype} of shape {list(images.shape)}"
        )
    if images.dtype == np.uint8:
        return images / np.float32(255)
    if not ((images >= manifest.input_min) & (images <= manifest.input_max)).all():
        raise ImagesError(
            f"{path}: expected values from {manifest.input_min:g} to {manifest.input_max:g}, "
            f"got {images.min():g} to {images.max():g}"
        )
    return images


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify", help="check a bundle's files, and with the train extra the parity of its runtimes"
    )
    verify.add_argument("path", type=Path, help="folder of the bundle, for example models/mnist/1")
    verify.add_argument(
        "--images",
        type=Path,
        metavar="FILE.npy",
        help="images to compare on, uint8 or float32 [N, H, W]; default: synthetic ones",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
