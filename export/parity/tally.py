"""Compare one runtime with the reference, stage by stage, and judge it by four tiers.

T0  the same bits where the kernels are the same: traced and untraced, and, if the
    runtime promises it, batch 1 and batch N
T1  every element of every stage within its proven bound (export/parity/bounds.py)
T2  every stage within 4 times the largest error that the manifest records for the
    runtime, provider and precision: the proven bound also covers what never happens
T3  every decision certified (export/parity/certificates.py): the exact logit of the predicted
    class is further above every other than the proven bound of their difference, so that every
    runtime within its bounds decides alike
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from export.architecture import Precision, Stage
from export.bundle.manifest import Record, RuntimeParity, StageParity
from export.parity.bounds import Reference
from export.parity.certificates import Certificates
from export.runtimes.runner import Runner

Tier = Literal["T0", "T1", "T2", "T3"]
GUARD_FACTOR = 4
NO_CERTIFICATES: Mapping[Precision, Certificates] = {}


class Violation(Record):
    """A tier that a runtime violates, and the stage at which."""

    tier: Tier
    stage: str
    text: str


def first_divergence(violations: Iterable[Violation]) -> Violation | None:
    """Return the first violation, in the order of the stages, that is the runtime's.

    A decision that is not certain (T3) is a property of the image instead.
    """
    return next((one for one in violations if one.tier != "T3"), None)


class StageTally:
    """The comparison of one stage; each chunk of images adds to it."""

    def __init__(self, stage: Stage) -> None:
        self.name = stage.name
        self.unit_errors = np.zeros(stage.shape)  # the largest error of each element of the stage
        self.elements = 0
        self._error_sum = 0.0
        self._bound = 0.0
        self._margin = 0.0
        self._ulps = 0.0

    def add(
        self, output: np.ndarray, exact: np.ndarray, bound: np.ndarray, images_before: int
    ) -> str | None:
        """Add a chunk, each [N, …]; return how it violates T1, or None."""
        if output.shape != exact.shape:
            return f"has shape {list(output.shape)}, expected {list(exact.shape)}"
        if output.dtype != np.float32:
            return f"has dtype {output.dtype}, expected float32"
        error = np.abs(output - exact)
        error[np.isnan(error)] = np.inf  # NaN counts as infinitely far off
        self.unit_errors = np.maximum(self.unit_errors, error.max(axis=0))
        self.elements += error.size
        self._error_sum += float(error.sum())
        self._bound = max(self._bound, float(bound.max()))
        used = np.divide(error, bound, out=np.where(error > 0, np.inf, 0.0), where=bound > 0)
        self._margin = max(self._margin, float(used.max()))
        each_image = (len(exact), -1)
        largest = np.abs(exact).reshape(each_image).max(axis=1).astype(np.float32)
        ulps = error.reshape(each_image).max(axis=1) / np.spacing(largest).astype(np.float64)
        self._ulps = max(self._ulps, float(ulps.max()))
        if used.max() <= 1:
            return None
        worst = np.unravel_index(used.argmax(), used.shape)
        image, *element = (int(index) for index in worst)
        return (
            f"diverges: element {element} of image {images_before + image} is {output[worst]:.9g}, "
            f"exactly {exact[worst]:.9g}, allowed difference {bound[worst]:.3g}"
        )

    def record(self) -> StageParity:
        """Return the figures, once there are elements."""
        return StageParity(
            stage=self.name,
            max_error=float(self.unit_errors.max()),
            mean_error=self._error_sum / self.elements,
            bound=self._bound,
            margin=self._margin,
            max_ulps=self._ulps,
        )


class Tally:
    """The comparison of one runner; each chunk of images adds to it.

    `recorded` has the largest recorded error of each stage; without it T2 is not
    judged.
    """

    def __init__(
        self, stages: Sequence[Stage], runner: Runner, recorded: Mapping[str, float]
    ) -> None:
        self.runner = runner
        self.images = 0
        self.stages = {stage.name: StageTally(stage) for stage in stages}
        self.used_its_precision = runner.precision == "float32"
        self.recorded = recorded
        self._output = stages[-1].name
        self.different_decisions = 0  # images with another than the exact forward pass
        self._certified = 0
        self._violations: dict[tuple[Tier, str], Violation] = {}

    def add(
        self,
        images: np.ndarray,
        references: Mapping[Precision, Reference],
        certificates: Mapping[Precision, Certificates] = NO_CERTIFICATES,
    ) -> dict[str, np.ndarray]:
        """Run images, FLOAT32 [N, H, W], and compare; return the traced outputs.

        `references` has float32 and the runner's own precision. Without `certificates` of that
        precision no decision is certified, and T3 is not judged.
        """
        outputs = self.runner.trace(images, list(self.stages))
        logits = self.runner.predict(images)
        self.expect_same_bits(outputs, {self._output: logits}, "an untraced run")
        if self.runner.batch_invariant:
            alone = [self.runner.trace(image[None], list(self.stages)) for image in images]
            joined = {name: np.concatenate([one[name] for one in alone]) for name in outputs}
            self.expect_same_bits(outputs, joined, "runs of one image")
        reference = references[self.runner.precision]
        for name in self.stages:
            if violation := self._add_stage(name, outputs.get(name), reference):
                self._note("T1", name, violation)
        self._add_decisions(logits, reference.values[self._output])
        if self.runner.precision in certificates:
            self._certify(certificates[self.runner.precision])
        self._detect_its_precision(outputs, references["float32"])
        self.images += len(images)
        return outputs

    def _add_stage(self, name: str, output: np.ndarray | None, reference: Reference) -> str | None:
        if output is None:
            return "is missing"
        return self.stages[name].add(
            output, reference.values[name], reference.bounds[name], self.images
        )

    def _detect_its_precision(self, outputs: Mapping[str, np.ndarray], float32: Reference) -> None:
        """Note that a lower precision was used: an error is larger than float32 allows."""
        for name, output in outputs.items():
            if self.used_its_precision:
                return
            error = np.abs(output - float32.values[name])
            within = error <= float32.bounds[name]  # False for NaN
            self.used_its_precision = not within.all()

    def expect_same_bits(
        self, outputs: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], whose: str
    ) -> None:
        """Note a violation of T0 for every stage of `others` that differs in a bit."""
        for name, other in others.items():
            output = outputs.get(name)
            if output is None or output.shape != other.shape:
                self._note("T0", name, f"has another shape than in {whose}")
            elif output.tobytes() != other.tobytes():
                self._note("T0", name, f"has other bits than in {whose}")

    def _add_decisions(self, logits: np.ndarray, exact: np.ndarray) -> None:
        if logits.shape != exact.shape:
            self.different_decisions += len(exact)
            return
        differs = logits.argmax(axis=1) != exact.argmax(axis=1)
        self.different_decisions += int((differs | np.isnan(logits).any(axis=1)).sum())

    def _certify(self, found: Certificates) -> None:
        certified = found.certified
        self._certified += int(certified.sum())
        if not certified.all():
            worst = int(np.argmin(np.where(certified, np.inf, found.gap - found.bound)))
            self._note(
                "T3",
                self._output,
                f"is not certain for image {self.images + worst}: its exact logits of classes "
                f"{found.predicted[worst]} and {found.nearest[worst]} are {found.gap[worst]:.3g} "
                f"apart, certain is more than {found.bound[worst]:.3g}",
            )

    def _note(self, tier: Tier, stage: str, text: str) -> None:
        self._violations.setdefault(
            (tier, stage), Violation(tier=tier, stage=stage, text=f"stage {stage!r} {text}")
        )

    @property
    def exceeds_a_bound(self) -> bool:
        """Tell whether a stage diverges by T1: others are not compared with it."""
        return any(tier == "T1" for tier, _ in self._violations)

    def unit_errors(self) -> dict[str, tuple[float, ...]]:
        """Return the largest error of each element of each stage that there was."""
        return {
            name: tuple(map(float, stage.unit_errors.ravel()))
            for name, stage in self.stages.items()
            if stage.elements
        }

    def record(self, image_set: str) -> RuntimeParity:
        """Return the figures, under the name of the images."""
        return RuntimeParity(
            runtime=self.runner.runtime,
            provider=self.runner.provider,
            precision=self.runner.precision,
            image_set=image_set,
            images=self.images,
            certified_share=self._certified / self.images,
            stages=tuple(stage.record() for stage in self.stages.values() if stage.elements),
        )

    def violations(self) -> list[Violation]:
        """Return the first violation of each tier and stage, in the order of the stages."""
        found = [*self._violations.values(), *self._record_violations()]
        order = list(self.stages)
        return sorted(found, key=lambda one: (order.index(one.stage), one.tier))

    def _record_violations(self) -> list[Violation]:
        """Return a violation of T2 for every stage with a larger error than allowed."""
        found = []
        for name, recorded in self.recorded.items():
            error = float(self.stages[name].unit_errors.max())
            if error > GUARD_FACTOR * recorded:
                text = (
                    f"stage {name!r} diverges from its record: its largest error is {error:.3g}, "
                    f"recorded is {recorded:.3g}, allowed {GUARD_FACTOR} times that "
                    "(if this machine is right, accept it: `python -m export compare --record`)"
                )
                found.append(Violation(tier="T2", stage=name, text=text))
        return found
