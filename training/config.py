"""Settings of `python -m training`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from export.settings import CommandSettings


class TrainingSettings(CommandSettings):
    """Train the network, export it, prove the exports equal, publish the bundle."""

    model_config = SettingsConfigDict(
        env_prefix="FORWARD_TRAINING_", cli_prog_name="python -m training"
    )

    dataset: Literal["mnist", "digits"] = Field(
        "mnist",
        description="Images to learn: MNIST, or scikit-learn's bundled digits, which need no "
        "download. Also the name of the model.",
    )
    data_dir: Path = Field(
        Path("data"), description="Folder that MNIST is downloaded to, or already lies in."
    )
    mirror: str | None = Field(
        None,
        description="URL of a folder with the four original MNIST files, http(s): or file:, to "
        "download from in place of torchvision's own mirrors.",
    )
    models_dir: Path = Field(
        Path("models"), description="Folder of bundles; the new one gets the next version."
    )
    epochs: int = Field(60, ge=1, description="Passes over the training images.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of every random choice.")
