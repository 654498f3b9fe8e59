"""The manifest of a bundle: it says what the model is; nothing else does."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from export.architecture import Stage, check_chain

# The files of a bundle, by what they hold.
MANIFEST_NAME = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"
ONNX_FILE = "model.onnx"
ONNX_TRACE_FILE = "trace.onnx"
TORCHSCRIPT_FILE = "model.ts"


class Record(BaseModel):
    """Base of all parts: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(Record):
    """A file of the bundle; `name` has no folder in it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    size_bytes: NonNegativeInt
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Dataset(Record):
    """The data that the model was trained on; `sha256` is over its files in sorted order."""

    name: str
    sha256: str
    train_images: PositiveInt
    held_out_images: PositiveInt
    test_images: PositiveInt


class StageParity(Record):
    """How far one stage of one runtime was from exact arithmetic.

    `max_error` is the largest difference seen, `bound` the largest proven bound
    and `margin` the largest share of its own bound that any element used; parity
    holds while the margin is at most 1.
    """

    stage: str
    max_error: float
    bound: float
    margin: float


class RuntimeParity(Record):
    """The comparison of one runtime, on one provider and precision."""

    runtime: str
    provider: str
    precision: str
    images: PositiveInt
    stages: tuple[StageParity, ...]


class Manifest(Record):
    """Everything that a server or a reader must know of a bundle."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: PositiveInt
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

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        check_chain(self.stages)
        if self.stages[-1].shape != (len(self.labels),):
            raise ValueError(
                f"{len(self.labels)} labels for an output of {list(self.stages[-1].shape)}"
            )
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.stages[0].shape
