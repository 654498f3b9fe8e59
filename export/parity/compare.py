"""Compare every runtime of a bundle with the float64 oracle on the same images."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar, get_args

import numpy as np
from pydantic import ConfigDict, Field, computed_field

from export.architecture import Device, Precision, Runtime
from export.bundle.manifest import Manifest, Record, RuntimeParity
from export.bundle.reading import Bundle
from export.errors import ExportError, ImagesError, ParityError, RuntimeUnavailableError
from export.parity.certificates import Proof, Prover
from export.parity.intervened import Probe, check_interventions, probes_of
from export.parity.probes import probe_images
from export.parity.tally import Tally, Tier, Violation, first_divergence
from export.runtimes.runner import InterveningRunner, Runner, open_runner

INTERVENED_IMAGES = 10  # of each comparison
CHUNK_IMAGES = 1000  # bounds the float64 copies to some tens of megabytes
TIERS: tuple[Tier, ...] = ("T0", "T1", "T2", "T3")
# They run the same kernels of torch on the same device, so their bits are the same (T0).
SAME_KERNELS: tuple[Runtime, ...] = ("eager", "torchscript", "pt2")

Key = TypeVar("Key")
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
    runners, ended = _open(bundle, variants)
    running = {variant: _tally(bundle.manifest, runner) for variant, runner in runners.items()}
    prover = Prover(bundle.manifest.stages, weights)
    precisions: set[Precision] = {"float32", *(variant.precision for variant in running)}
    for chunk in chunks(images.pixels, CHUNK_IMAGES):
        proofs = prover.prove_each(chunk, precisions)
        for variant, error in add_images(running, chunk, proofs).items():
            reason = f"{type(error).__name__}: {error}"
            ended[variant] = _ended(variant, "fails", reason)
            del running[variant]
    few = images.pixels[:INTERVENED_IMAGES]

    @functools.cache  # the oracle takes longer than a runtime
    def probes(precision: Precision) -> list[Probe]:
        return probes_of(bundle.manifest.stages, weights, few, precision)

    for variant, tally in running.items():
        ended[variant] = _judge(variant, tally, images)
        if ended[variant].status == "holds" and runners[variant].can_intervene:
            try:
                check_interventions(bundle, probes(variant.precision), runners[variant], few)
            except ParityError as error:
                ended[variant] = _ended(variant, "fails", str(error))
    return Report(
        model=bundle.manifest.name,
        version=bundle.manifest.version,
        image_set=images.name,
        images=len(images.pixels),
        comparisons=tuple(ended[variant] for variant in variants),
    )


def _open(
    bundle: Bundle, variants: Sequence[Variant]
) -> tuple[dict[Variant, InterveningRunner], dict[Variant, Comparison]]:
    """Return a runner for each variant that loads, and a result for each that does not."""
    runners, ended = {}, {}
    for variant in variants:
        try:
            runners[variant] = open_runner(
                bundle, variant.runtime, variant.device, variant.precision
            )
        except RuntimeUnavailableError as error:
            ended[variant] = _ended(variant, "not run", str(error))
        except ExportError as error:
            ended[variant] = _ended(variant, "fails", str(error))
    return runners, ended


def _tally(manifest: Manifest, runner: Runner) -> Tally:
    recorded = manifest.recorded_errors(runner.runtime, runner.provider, runner.precision)
    return Tally(manifest.stages, runner, recorded)


def add_images(
    tallies: Mapping[Key, Tally], images: np.ndarray, proofs: Mapping[Precision, Proof]
) -> dict[Key, Exception]:
    """Add images to every tally; return the error of each whose runtime failed."""
    references = {precision: proof.reference for precision, proof in proofs.items()}
    certificates = {precision: proof.certificates for precision, proof in proofs.items()}
    outputs: dict[Key, dict[str, np.ndarray]] = {}
    failures = {}
    for key, tally in tallies.items():
        try:
            outputs[key] = tally.add(images, references, certificates)
        except Exception as error:  # noqa: BLE001 (whatever a runtime raises is its failure)
            failures[key] = error
            continue
        for other, same in outputs.items():
            another = tallies[other]
            if _have_same_kernels(tally.runner, another.runner) and not another.exceeds_a_bound:
                tally.expect_same_bits(outputs[key], same, name_of(another.runner))
                break
    return failures


def name_of(runner: Runner) -> str:
    """Return a runner in words, as `Variant.name` does."""
    return f"{runner.runtime} {runner.device} {runner.precision}"


def _have_same_kernels(one: Runner, other: Runner) -> bool:
    return (
        one is not other
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


def chunks(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield so many of the images at a time."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
