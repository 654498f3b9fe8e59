"""Command line of the export package: `python -m export verify|compare models/mnist/1`."""

import signal

from export.signals import end_at_once_on

if __name__ == "__main__":  # before the other imports, which take a while
    end_at_once_on(signal.SIGTERM, signal.SIGINT)

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from export.architecture import Device, Precision, Runtime
from export.bundle import Bundle, open_bundle
from export.bundle.publishing import write_manifest
from export.bundle.record import read_record
from export.bundle.reference import read_reference
from export.errors import HOW_TO_GET_TORCH, BundleError, ExportError, RuntimeUnavailableError
from export.output import make_console, print_error, printable, run_command
from export.parity.compare import Report, compare, synthetic_images, variants_of
from export.parity.images import read_images
from export.parity.report import print_report
from export.parity.vectors import check_vectors
from export.program import program_name
from export.runtimes import open_runner

PROGRAM = program_name("export", "forward-export")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        bundle = open_bundle(options.path)
        bundle.verify_files()
        holds: bool = options.run(bundle, options)
    except ExportError as error:
        print_error(PROGRAM, str(error))
        return 1
    return 0 if holds else 1


def _verify(bundle: Bundle, options: argparse.Namespace) -> bool:
    """Check the files, and the recorded vectors in each installed runtime."""
    if unlisted := bundle.unlisted_files():
        raise BundleError(f"{bundle.path}: the manifest does not list {', '.join(unlisted)}")
    print(f"manifest.json and {len(bundle.manifest.files)} files match their hashes.")
    holds = _verify_record(bundle) & _verify_reference(bundle)
    for runtime in options.runtime or get_args(Runtime):
        try:
            images = check_vectors(bundle, open_runner(bundle, runtime, "cpu")).images
        except RuntimeUnavailableError as error:
            print(f"{runtime}: not run: {printable(str(error))}")
        except ExportError as error:
            holds = False
            print_error(runtime, f"fails: {error}")
        else:
            print(f"{runtime}: every stage of {images} recorded vectors is correct.")
    return holds


def _verify_record(bundle: Bundle) -> bool:
    """Check the record of the training, if there is one."""
    try:
        epochs, snapshots = read_record(bundle)
    except BundleError as error:
        print_error("training record", f"fails: {error}")
        return False
    if epochs:
        kept = f", {len(snapshots.by_epoch)} snapshots" if snapshots else ""
        print(f"training record: {len(epochs)} epochs{kept}.")
    return True


def _verify_reference(bundle: Bundle) -> bool:
    """Check the histograms of the training images, if they are there."""
    try:
        reference = read_reference(bundle)
    except BundleError as error:
        print_error("drift reference", f"fails: {error}")
        return False
    if reference:
        print(f"drift reference: {reference.images} images.")
    return True


def _compare(bundle: Bundle, options: argparse.Namespace) -> bool:
    """Compare the runtimes with the oracle; print, draw and record the result."""
    weights = _weights(bundle)
    synthetic = synthetic_images(bundle.manifest, weights)
    images = read_images(options.images, bundle.manifest) if options.images else synthetic
    variants = variants_of(
        options.runtime or get_args(Runtime),
        options.device or get_args(Device),
        options.precision or ("float32",),
    )
    report = compare(bundle, weights, images, variants)
    if options.json:
        print(json.dumps(report.model_dump(mode="json"), indent=2))  # ASCII alone
    else:
        print_report(make_console(), report, bundle.path)
    if options.picture:
        from export.parity.heatmap import draw_heatmap  # noqa: PLC0415 (in the extra, and slow)

        _write(options.picture, draw_heatmap(report, bundle.manifest.stages))
    if options.record:
        # The synthetic images are brighter than most, and are what a server checks itself with.
        more = compare(bundle, weights, synthetic, variants) if options.images else report
        _record(bundle, (report, more))
    return report.holds


def _weights(bundle: Bundle) -> dict[str, np.ndarray]:
    try:
        from export.bundle.weights import read_weights  # noqa: PLC0415 (in the extra)
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"the oracle reads the weights with {error.name!r}; {HOW_TO_GET_TORCH}"
        ) from error
    return read_weights(bundle)


def _record(bundle: Bundle, reports: Sequence[Report]) -> None:
    """Write the figures into the manifest; they replace older ones of the same runs.

    This accepts errors that violate the former record (T2): the user asked for it.
    """
    comparisons = [one for report in reports for one in report.comparisons]
    broken = [one.name for one in comparisons if one.is_broken]
    if broken:
        raise ExportError(f"not recorded: {', '.join(dict.fromkeys(broken))} failed T0 or T1")
    new = {record.run: record for report in reports for record in report.records()}
    old = {record.run: record for record in bundle.manifest.parity}
    parity = tuple((old | new).values())
    try:
        write_manifest(bundle.path, bundle.manifest.model_copy(update={"parity": parity}))
    except OSError as error:
        raise ExportError(f"{bundle.path}: can't be written: {error.strerror}") from error
    text = f"{len(new)} records written to the manifest of {bundle.path}."
    print(printable(text), file=sys.stderr)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ExportError(f"{path}: can't be written: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Check a bundle.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    summary = "check the files of a bundle, and its recorded vectors in each installed runtime"
    verify = commands.add_parser("verify", help=summary, description=summary)
    verify.set_defaults(run=_verify)
    summary = "compare every stage of every runtime with exact arithmetic"
    comparison = commands.add_parser("compare", help=summary, description=summary)
    comparison.set_defaults(run=_compare)
    for command in (verify, comparison):
        command.add_argument(
            "path", type=Path, help="folder of the bundle, for example models/mnist/1"
        )
        _add_choice(command, "--runtime", get_args(Runtime), default="all")
    _add_choice(comparison, "--device", get_args(Device), default="all")
    _add_choice(comparison, "--precision", get_args(Precision), default="float32")
    comparison.add_argument(
        "--images",
        type=Path,
        metavar="FILE",
        help="images to compare on: .npy, uint8 or float32 [N, H, W], or a file of MNIST's, "
        "gzipped or not; default: synthetic ones",
    )
    comparison.add_argument("--json", action="store_true", help="print the report as JSON")
    comparison.add_argument("--picture", type=Path, metavar="FILE.png", help="draw a heat map")
    comparison.add_argument(
        "--record",
        action="store_true",
        help="write the figures into the manifest; later comparisons and servers are checked "
        "against them",
    )
    return parser


def _add_choice(
    command: argparse.ArgumentParser, flag: str, choices: Sequence[str], default: str
) -> None:
    command.add_argument(
        flag,
        action="append",
        choices=choices,
        metavar="NAME",
        help=f"{', '.join(choices)}; may be given several times; default: {default}",
    )


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, main))
