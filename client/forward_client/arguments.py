"""Arguments of the commands that ask why: `trace`, `explain`, `compare`."""

import argparse
from pathlib import Path

from forward_client.interventions import Intervention
from forward_client.messages import METHODS

SET_HELP = (
    "change a stage's output, and compute all after it from that; can be repeated. "
    "STAGE[UNITS]@IMAGES is what: 'relu[3,17]', 'linear1[0..9]@2'; without [UNITS] all, without "
    "@IMAGES all. =0 or =VALUE,... sets, +=NUMBER and -=NUMBER add, *=NUMBER scales, "
    "=MIN..MAX clamps (either may be missing), =@IMAGE takes the values of another image. Images "
    "are counted from 0 over all files"
)


def add_trace_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `trace` has beside the flags of `predict`."""
    parser.add_argument(
        "--set",
        type=_intervention,
        action="append",
        default=[],
        metavar="CHANGE",
        dest="interventions",
        help=SET_HELP,
    )
    parser.add_argument(
        "--certify",
        action="store_true",
        help="print the stages' proven bounds and whether each decision is certified",
    )
    parser.add_argument(
        "--detail",
        choices=("statistics", "units"),
        default="statistics",
        help="units: also of each unit over the images, for example how many are always 0",
    )


def add_explain_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `explain`."""
    parser.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="linear_region",
        help="how contributions are computed (linear_region)",
    )
    parser.add_argument(
        "--target", metavar="LABEL", help="the class to explain (the predicted class)"
    )
    parser.add_argument(
        "--other", metavar="LABEL", help="explain the target's score less that of this class"
    )
    parser.add_argument(
        "--stage",
        metavar="NAME",
        help="the stage whose strongest units are printed (the last ReLU); '' for none",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="IMAGE",
        help="the image that integrated_gradients starts from (black)",
    )


def add_compare_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `compare`."""
    parser.add_argument(
        "--runtime",
        action="append",
        default=[],
        metavar="NAME",
        dest="runtimes",
        help="only this runtime; can be repeated: numpy, onnx, eager, torchscript, pt2 "
        "(all that the server has)",
    )


def _intervention(text: str) -> Intervention:
    try:
        return Intervention.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
