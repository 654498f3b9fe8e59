"""Compare every runtime of a bundle with the float64 oracle on the same images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np
from pydantic import ConfigDict, Field, computed_field

from export.architecture import Device, Precision, Runtime
from export.bundle.manifest import Manifest, Record, RuntimeParity
from export.bundle.reading import Bundle
from export.errors import ExportError, ImagesError, RuntimeUnavailableError
from export.parity.bounds import Reference, bounded
from export.parity.probes import probe_images
from export.parity.tally import Tally, Tier, Violation, first_divergence
from export.runtimes.numpy import NumpyRunner
from export.runtimes.runner import open_runner

CHUNK_IMAGES = 1000  # bounds the float64 copies to some tens of megabytes
TIERS: tuple[Tier, ...] = ("T0", "T1", "T2", "T3")
# They run the same kernels of torch on the same device, so their bits are the same (T0).
SAME_KERNELS: tuple[Runtime, ...] = ("eager", "torchscript", "pt2")

TierResult = Literal["holds", "fails", "not judged"]


@dataclass(frozen=True)
class ImageSet:
    """Images, FLOAT32 [N, H, W], under the name that their record has.

    Decisions (T3) are not judged on synthetic images: those have no right answer.
    """

    name: str
    pixels: np.ndarray
    is_synthetic: bool = False


class Variant(Record):
    """A way to run the model."""

    runtime: Runtime
    device: Device
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        """The variant in words."""
        return f"{self.runtime} {self.device} {self.precision}"


def variants_of(
    runtimes: Iterable[Runtime] = get_args(Runtime),
    devices: Iterable[Device] = get_args(Device),
    precisions: Iterable[Precision] = ("float32",),
) -> list[Variant]:
    """Return every combination of these, each once."""
    variants = (
        Variant(runtime=runtime, device=device, precision=precision)
        for runtime, device, precision in product(runtimes, devices, precisions)
    )
    return list(dict.fromkeys(variants))


def synthetic_images(manifest: Manifest, weights: Mapping[str, np.ndarray]) -> ImageSet:
    """Return images for a bundle without its dataset."""
    low, high = manifest.input_min, manifest.input_max
    pixels = probe_images(manifest.stages, weights, low, high)
    return ImageSet("synthetic", pixels, is_synthetic=True)


class Comparison(Variant):
    """The result of one variant. `reason` is why it was not run, or could not go on.

    The aliases are the names in the output of `compare --json`, which others read.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    status: Literal["holds", "fails", "not run"]
    reason: str | None = None
    tiers: dict[Tier, TierResult] = Field(default={})
    violations: tuple[Violation, ...] = Field(default=(), serialization_alias="faults")
    record: RuntimeParity | None = None
    # For the picture, by stage: the largest error of each of its elements.
    unit_errors: dict[str, tuple[float, ...]] = Field(default={}, exclude=True, repr=False)

    @property
    def divergence(self) -> str | None:
        """Why the runtime does not compute the model, if it does not."""
        if self.status == "fails" and self.reason:
            return self.reason
        violation = first_divergence(self.violations)
        return violation.text if violation else None

    @property
    def is_broken(self) -> bool:
        """Tell whether it failed to run, or violates T0 or T1: no record may accept that."""
        could_not_run = self.status == "fails" and self.record is None
        return could_not_run or any(one.tier in {"T0", "T1"} for one in self.violations)

    # mypy knows no decorated property
    @computed_field(alias="first_departing_stage")  # type: ignore[prop-decorator]
    @property
    def first_diverging_stage(self) -> str | None:
        """The first stage whose output is wrong."""
        violation = first_divergence(self.violations)
        return violation.stage if violation else None


class Report(Record):
    """The results of all variants."""

    model: str
    version: int
    image_set: str
    images: int
    comparisons: tuple[Comparison, ...]

    @property
    def holds(self) -> bool:
        """Tell whether something was compared, and all that was compared holds."""
        ran = [one for one in self.comparisons if one.status != "not run"]
        return bool(ran) and all(one.status == "holds" for one in ran)

    def records(self) -> tuple[RuntimeParity, ...]:
        """Return the figures of all variants that ran to the end."""
        return tuple(one.record for one in self.comparisons if one.record)


def compare(
    bundle: Bundle,
    weights: Mapping[str, np.ndarray],
    images: ImageSet,
    variants: Sequence[Variant],
) -> Report:
    """Run images through every variant and through the oracle.

    Raises:
        ImagesError: there are no images.
    """
    if len(images.pixels) == 0:
        raise ImagesError("no images to compare on; expected at least one")
    running, ended = _open(bundle, variants)
    stages = bundle.manifest.stages
    oracle = NumpyRunner(stages, weights)
    precisions: set[Precision] = {"float32", *(variant.precision for variant in running)}
    for chunk in _chunks(images.pixels):
        exact = oracle.trace(chunk)
        references = {
            precision: bounded(stages, weights, exact, precision) for precision in precisions
        }
        for variant, reason in _add(running, chunk, references).items():
            ended[variant] = _ended(variant, "fails", reason)
            del running[variant]
    for variant, tally in running.items():
        ended[variant] = _judge(variant, tally, images)
    return Report(
        model=bundle.manifest.name,
        version=bundle.manifest.version,
        image_set=images.name,
        images=len(images.pixels),
        comparisons=tuple(ended[variant] for variant in variants),
    )


def _open(
    bundle: Bundle, variants: Sequence[Variant]
) -> tuple[dict[Variant, Tally], dict[Variant, Comparison]]:
    """Return a tally for each variant that loads, and a result for each that does not."""
    running, ended = {}, {}
    for variant in variants:
        try:
            runner = open_runner(bundle, variant.runtime, variant.device, variant.precision)
        except RuntimeUnavailableError as error:
            ended[variant] = _ended(variant, "not run", str(error))
        except ExportError as error:
            ended[variant] = _ended(variant, "fails", str(error))
        else:
            manifest = bundle.manifest
            recorded = manifest.recorded_errors(runner.runtime, runner.provider, runner.precision)
            running[variant] = Tally(manifest.stages, runner, recorded)
    return running, ended


def _add(
    running: Mapping[Variant, Tally], images: np.ndarray, references: Mapping[Precision, Reference]
) -> dict[Variant, str]:
    """Add a chunk to every tally; return the reason for each variant that failed."""
    outputs: dict[Variant, dict[str, np.ndarray]] = {}
    failures = {}
    for variant, tally in running.items():
        try:
            outputs[variant] = tally.add(images, references)
        except Exception as error:  # noqa: BLE001 (whatever a runtime raises is its failure)
            failures[variant] = f"{type(error).__name__}: {error}"
            continue
        for other, same in outputs.items():
            if _have_same_kernels(variant, other) and not running[other].exceeds_a_bound:
                tally.expect_same_bits(outputs[variant], same, other.name)
                break
    return failures


def _have_same_kernels(one: Variant, other: Variant) -> bool:
    return (
        one != other
        and (one.device, one.precision) == (other.device, other.precision)
        and {one.runtime, other.runtime} <= set(SAME_KERNELS)
    )


def _judge(variant: Variant, tally: Tally, images: ImageSet) -> Comparison:
    if not tally.used_its_precision:
        return _ended(
            variant,
            "not run",
            f"{variant.precision} was allowed, but every result is within float32's own bound: "
            "this machine's kernels did not use it",
        )
    not_judged: set[Tier] = set()
    if not tally.recorded:
        not_judged.add("T2")
    if images.is_synthetic:
        not_judged.add("T3")
    violations = tuple(one for one in tally.violations() if one.tier not in not_judged)
    failed = {one.tier for one in violations}
    return Comparison(
        **variant.model_dump(),
        status="fails" if violations else "holds",
        tiers={
            tier: "not judged" if tier in not_judged else "fails" if tier in failed else "holds"
            for tier in TIERS
        },
        violations=violations,
        record=tally.record(images.name),
        unit_errors=tally.unit_errors(),
    )


def _ended(variant: Variant, status: Literal["fails", "not run"], reason: str) -> Comparison:
    return Comparison(**variant.model_dump(), status=status, reason=reason)


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), CHUNK_IMAGES):
        yield images[start : start + CHUNK_IMAGES]
