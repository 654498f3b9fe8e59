"""Settings of `python -m training`."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from export.architecture import Device
from export.program import program_name
from export.settings import CommandSettings

PROGRAM = program_name("training", "forward-train")
DatasetName = Literal["mnist", "fashion-mnist", "digits"]
MAX_HIDDEN_LAYERS = 16
MAX_SEED = 2**32 - 1
SIDE, CLASSES = 28, 10  # of the images and labels of each dataset
MAX_WEIGHT_BYTES = 2**31 - 2**20  # protobuf, and so ONNX, ends at 2 GiB; 1 MiB is for the rest


def parameter_count(hidden: tuple[int, ...]) -> int:
    """Return the weights and biases of a network with these hidden layers."""
    sizes = (SIDE * SIDE, *hidden, CLASSES)
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))


class Recipe(BaseModel):
    """Everything that decides the weights: on one machine, the same recipe gives the same bits.

    The descriptions are comments in `recipe.toml`: a change of one differs from published bundles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetName = Field(
        default="mnist",
        description="Images to learn: MNIST, Fashion-MNIST, or scikit-learn's bundled digits, "
        "which need no download. Also the name of the model.",
    )
    hidden: Annotated[tuple[PositiveInt, ...], NoDecode] = Field(
        default=(128,), description="Units of each hidden layer: 128, or 256,128 for two layers."
    )
    epochs: int = Field(
        default=200, ge=1, le=1_000_000, description="Passes over the training images."
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Seed of every random choice.")
    threads: int = Field(default=1, ge=1, le=1024, description="Threads that compute.")
    device: Device = Field(default="cpu", description="Where to compute: cpu or cuda.")
    batch_images: int = Field(default=512, ge=1, le=1_000_000, description="Images in a step.")
    learning_rate: float = Field(default=0.03, gt=0, le=1, description="Peak learning rate.")
    weight_decay: float = Field(default=1e-2, ge=0, le=1, description="Weight decay, decoupled.")
    average_decay: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Decay of the average of the weights, a step; 0: no average.",
    )
    augmentation: float = Field(
        default=1.5, ge=0, le=10, description="Strength of the distortions; 0: none."
    )
    augmentation_end: float = Field(
        default=0.2,
        ge=0,
        le=10,
        description="The same at the end, over the last 30% of the steps.",
    )

    @field_validator("hidden", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("hidden")
    @classmethod
    def _has_layers(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not 1 <= len(value) <= MAX_HIDDEN_LAYERS:
            raise ValueError(f"expected 1 to {MAX_HIDDEN_LAYERS} layers")
        weight_bytes = 4 * parameter_count(value)
        if weight_bytes > MAX_WEIGHT_BYTES:
            gibibytes = min(weight_bytes // 2**30, 10**12)  # more digits say nothing
            raise ValueError(
                f"the weights would take {gibibytes:,} GiB or more, and several times that in "
                "training; a file of ONNX ends at 2 GiB: expected fewer units"
            )
        return value

    def toml(self) -> str:
        """Return the recipe as a file for `--config`; JSON's scalars and arrays are TOML's."""
        lines = [
            f"# {field.description}\n{name} = {json.dumps(getattr(self, name))}\n"
            for name, field in Recipe.model_fields.items()
        ]
        return "\n".join(lines)


class TrainingSettings(CommandSettings, Recipe):
    """Train the network, export it, check that the exports agree, publish the bundle."""

    model_config = SettingsConfigDict(env_prefix="FORWARD_TRAINING_", cli_prog_name=PROGRAM)

    data_dir: Path = Field(
        Path("data"), description="Folder that the dataset is downloaded to, or is already in."
    )
    mirror: str | None = Field(
        None,
        description="URL of a folder with the dataset's four original files, http(s): or file:, "
        "to download from instead of torchvision's mirrors.",
    )
    check_data: bool = Field(
        True,
        description="Check the files of MNIST and Fashion-MNIST against their published MD5 sums; "
        "--no-check-data accepts your own data in the same format.",
    )
    models_dir: Path = Field(
        Path("models"), description="Model repository; the new bundle gets the next version."
    )
    config: Path | None = Field(
        None, description="TOML file of settings; a bundle's recipe.toml is one."
    )
    seeds: int = Field(
        1,
        ge=1,
        le=1000,
        description="Number of trainings, with consecutive seeds from --seed on; the best on the "
        "held-out images is published, with the figures over all.",
    )
    resume: bool = Field(
        False, description="Continue an interrupted training of the same settings."
    )
    add_reference: Path | None = Field(
        None,
        description="Folder of a bundle to add the drift reference to, from the images that it was "
        "trained on. Nothing is trained.",
    )
    tensorboard: Path | None = Field(
        None, description="Folder to write TensorBoard's events to; needs the tensorboard extra."
    )

    @model_validator(mode="after")
    def _seeds_are_seeds(self) -> Self:
        if self.seed + self.seeds > MAX_SEED + 1:
            raise ValueError(
                f"--seed {self.seed} and --seeds {self.seeds}: the last would be over {MAX_SEED}"
            )
        return self

    def recipe(self, seed: int) -> Recipe:
        """Return the recipe of the training with this seed."""
        own = {name: getattr(self, name) for name in Recipe.model_fields}
        return Recipe.model_validate({**own, "seed": seed})
