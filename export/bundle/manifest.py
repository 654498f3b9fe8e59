"""The manifest of a bundle: the only description of the model."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from export.architecture import Precision, Runtime, Stage, check_chain

# The files of a bundle, by what they hold.
MANIFEST_NAME = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"
ONNX_FILE = "model.onnx"
ONNX_TRACE_FILE = "trace.onnx"
ONNX_INTERVENTIONS_FILE = "interventions.onnx"
TORCHSCRIPT_FILE = "model.ts"
PT2_FILE = "model.pt2"
VECTORS_FILE = "vectors.npz"
HISTORY_FILE = "history.jsonl"
SNAPSHOTS_FILE = "snapshots.safetensors"
DRIFT_REFERENCE_FILE = "drift_reference.json"

TEST_IMAGES = "test"  # names the dataset's test images in a record of parity
MAX_VERSION = 2**63 - 1  # what an int64 of the protocols holds
SHA256 = r"^[0-9a-f]{64}$"
UNSEALED = "0" * 64


class Record(BaseModel):
    """Base of all parts: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(Record):
    """A file of the bundle; `name` has no folder in it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    size_bytes: NonNegativeInt
    sha256: str = Field(pattern=SHA256)


class Dataset(Record):
    """The data that the model was trained on; `sha256` is over its files in sorted order."""

    name: str
    sha256: str
    train_images: PositiveInt
    held_out_images: PositiveInt
    test_images: PositiveInt


class StageParity(Record):
    """How far one stage of one runtime was from exact arithmetic.

    Errors are differences from the float64 oracle, `bound` is the largest proven
    bound, `margin` the largest share of its own bound that any element used, and
    `max_ulps` the largest error in units of the last place of the largest value
    that the stage has for the same image.
    """

    stage: str
    max_error: float
    mean_error: float
    bound: float
    margin: float
    max_ulps: float


class RuntimeParity(Record):
    """The comparison of one runtime on one provider, at one precision, on one set of images.

    `certified_share` is the share of decisions that are proven to be the same in every runtime
    of the precision (export/parity/certificates.py).
    """

    runtime: Runtime
    provider: str
    precision: Precision
    image_set: str
    images: PositiveInt
    certified_share: float
    stages: tuple[StageParity, ...]

    @property
    def run(self) -> tuple[str, str, str, str]:
        """The key of the record; a newer record with the same key replaces an older one."""
        return (self.runtime, self.provider, self.precision, self.image_set)


class Manifest(Record):
    """Everything that a server or a reader must know about a bundle.

    `sha256` is of the manifest's own bytes, with 64 zeros in its place.
    """

    sha256: str = Field(default=UNSEALED, pattern=SHA256)
    schema_version: Literal[2] = 2
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: int = Field(ge=1, le=MAX_VERSION)
    architecture: str
    stages: tuple[Stage, ...]
    input_min: float
    input_max: float
    labels: tuple[str, ...]
    files: tuple[File, ...]
    dataset: Dataset
    seed: int
    metrics: dict[str, float]
    parity: tuple[RuntimeParity, ...]
    tools: dict[str, str]
    hardware: dict[str, str] = Field(default_factory=dict)  # that it was trained on

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        check_chain(self.stages)
        if self.stages[-1].shape != (len(self.labels),):
            raise ValueError(
                f"{len(self.labels)} labels for an output of {list(self.stages[-1].shape)}"
            )
        names = {stage.name for stage in self.stages}
        for record in self.parity:
            if unknown := {stage.stage for stage in record.stages} - names:
                raise ValueError(f"parity of unknown stages: {sorted(unknown)}")
        return self

    def recorded_errors(
        self, runtime: Runtime, provider: str, precision: Precision
    ) -> dict[str, float]:
        """Return the largest recorded error of each stage; empty if none was recorded."""
        errors: dict[str, float] = {}
        for record in self.parity:
            if record.run[:3] == (runtime, provider, precision):
                for stage in record.stages:
                    errors[stage.stage] = max(errors.get(stage.stage, 0.0), stage.max_error)
        return errors

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.stages[0].shape
