"""Decodes the interventions of a request, or says everything that is wrong with them."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from export.architecture import Stage
from forward.v1 import forward_pb2 as pb
from server.api.sizes import MAX_VIOLATIONS
from server.engine.interventions import Add, Change, Clamp, FromImage, Intervention, Scale, Set
from server.errors import Violation, quote

MAX_INTERVENTIONS = 64  # each may change every element of a stage
LARGEST = float(np.finfo(np.float32).max)


def decode_interventions(
    messages: Sequence[pb.Intervention],
    stages: Sequence[Stage],
    images: int | None,
    violations: list[Violation],
) -> list[Intervention]:
    """Return the interventions for so many images; append what is wrong to `violations`.

    None as images, for a request whose images are not right, leaves what names images unchecked.
    """
    if len(messages) > MAX_INTERVENTIONS:
        text = f"expected at most {MAX_INTERVENTIONS}, got {len(messages)}"
        violations.append(Violation("interventions", text))
        return []
    decoded = []
    for index, message in enumerate(messages):
        before = len(violations)
        if before >= MAX_VIOLATIONS:
            break
        one = _Decoder(f"interventions[{index}]", message, images, violations).decode(stages)
        if one is not None and len(violations) == before:
            decoded.append(one)
    _check_ranges(decoded, violations)
    return decoded


class _Decoder:
    """Decodes one intervention; appends to its violations."""

    def __init__(
        self, path: str, message: pb.Intervention, images: int | None, violations: list[Violation]
    ) -> None:
        self._path, self._message = path, message
        self._images = images
        self._violations = violations

    def decode(self, stages: Sequence[Stage]) -> Intervention | None:
        """Return the intervention; what is wrong with it was appended."""
        stage = self._stage(stages)
        if stage is None:
            return None
        units = self._positions("units", self._message.units, stage.size)
        images = self._positions("images", self._message.images, self._images)
        change = self._change(len(units))
        if change is None:
            return None
        return Intervention(stage.name, units, images, change)

    def _stage(self, stages: Sequence[Stage]) -> Stage | None:
        changeable = {stage.name: stage for stage in stages if stage.operation != "Output"}
        stage = changeable.get(self._message.stage)
        if stage is None:
            found = quote(self._message.stage)
            if self._message.stage == stages[-1].name:
                found += f", from which nothing is computed; change {stages[-2].name!r}"
            self._add("stage", f"expected one of {', '.join(changeable)}, got {found}")
        return stage

    def _positions(self, field: str, given: Sequence[int], size: int | None) -> np.ndarray:
        if not given:
            return np.arange(size or 0, dtype=np.int64)
        positions = np.array(given, np.int64)
        outside = positions[(positions < 0) | (positions >= (size or 0))]
        if size is not None and outside.size:
            self._add(field, f"expected positions from 0 to {size - 1}, got {outside[0]}")
        if len(set(given)) < len(given):
            self._add(field, "expected each position once, got one twice")
        return positions

    def _change(self, units: int) -> Change | None:
        message, change = self._message, self._message.WhichOneof("change")
        if change is None:
            self._add("change", "expected one of zero, set, add, scale, clamp or from_image")
            return None
        decoders: dict[str, Callable[[], Change]] = {
            "zero": self._zero,
            "set": lambda: self._set(message.set.values, units),
            "add": lambda: Add(self._finite("add", message.add)),
            "scale": lambda: Scale(self._finite("scale", message.scale)),
            "clamp": lambda: self._clamp(message.clamp),
            "from_image": lambda: self._from_image(message.from_image),
        }
        return decoders[change]()

    def _zero(self) -> Set:
        if not self._message.zero:
            self._add("zero", "expected true, or another change, got false")
        return Set(np.zeros(1))

    def _set(self, values: Sequence[float], units: int) -> Set:
        array = np.array(values)
        if len(array) not in {1, units}:
            expected = "1 value" if units == 1 else f"1 value or {units}, one for each unit"
            self._add("set.values", f"expected {expected}, got {len(array)}")
        elif not np.isfinite(array).all():
            place = int(np.argmin(np.isfinite(array)))
            self._add("set.values", f"expected finite values, got {array[place]} at {place}")
        return Set(array)

    def _clamp(self, clamp: pb.Clamp) -> Clamp:
        low = self._finite("clamp.min", clamp.min) if clamp.HasField("min") else -math.inf
        high = self._finite("clamp.max", clamp.max) if clamp.HasField("max") else math.inf
        if (low, high) == (-math.inf, math.inf):
            self._add("clamp", "expected min, max or both, got neither")
        elif low > high:
            self._add("clamp", f"expected min up to max, got {low:g} and {high:g}")
        return Clamp(low, high)

    def _from_image(self, image: int) -> FromImage:
        if self._images is not None and not 0 <= image < self._images:
            text = f"expected an image from 0 to {self._images - 1}, got {image}"
            self._add("from_image", text)
        return FromImage(image)

    def _finite(self, field: str, number: float) -> float:
        if not math.isfinite(number):
            self._add(field, f"expected a finite number, got {number}")
        return number

    def _add(self, field: str, text: str) -> None:
        self._violations.append(Violation(f"{self._path}.{field}", text))


def _check_ranges(interventions: Sequence[Intervention], violations: list[Violation]) -> None:
    """Append a violation for a stage whose interventions together leave the range of float32."""
    largest: dict[str, tuple[float, float]] = {}  # by stage: of the scale, and of what is added
    for one in interventions:
        scale, added = largest.get(one.stage, (1.0, 0.0))
        match one.change:
            case Scale(number):
                factor = max(abs(number), 1.0)
                scale, added = scale * factor, added * factor
            case Add(number):
                added += abs(number)
            case Set(values):
                added = max(added, float(np.abs(values).max(initial=0)))
            case Clamp(low, high):
                bounds = [abs(bound) for bound in (low, high) if math.isfinite(bound)]
                added = max([added, *bounds])
        largest[one.stage] = scale, added
    for stage, numbers in largest.items():
        if max(numbers) > LARGEST:
            text = f"those of stage {stage!r} together leave the range of float32"
            violations.append(Violation("interventions", text))
