"""Settings of `python -m deploy.ray score`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import CliPositionalArg, NoDecode, SettingsConfigDict

from export.bundle.manifest import MAX_VERSION
from export.settings import CommandSettings

PROGRAM = "python -m deploy.ray score"
MIN_OBJECT_STORE_MB = 80  # Ray itself wants 75 MiB
OF_A_CLUSTER = ("cpus", "object_store_mb")  # what a cluster that runs already has decided


class ScoreSettings(CommandSettings):
    """Score the images of a folder with a bundle, into Parquet files; continue what was begun."""

    model_config = SettingsConfigDict(env_prefix="FORWARD_SCORE_", cli_prog_name=PROGRAM)

    input: CliPositionalArg[str] = Field(
        description="Folder or file with the images, or a URI such as s3://bucket/folder: Parquet, "
        "NPY, IDX (also .gz) and pictures, by the ends of their names.",
    )
    output: CliPositionalArg[str] = Field(
        description="Folder for the Parquet files, or a URI; empty, new, or of the same scoring.",
    )
    models_dir: Path = Field(
        Path("models"), description="Model repository, a folder: its bundles are in MODEL/VERSION/"
    )
    model: str = Field("mnist", description="Name of the model.")
    model_version: int | None = Field(
        None, ge=1, le=MAX_VERSION, description="Version of the model; the newest if not given."
    )
    runtime: Literal["onnx", "pt2", "torchscript"] = Field(
        "onnx", description="Runtime that computes; pt2 and torchscript need the train extra."
    )
    column: str = Field(
        "image", description="Column of the images in Parquet files: lists of their pixels."
    )
    stages: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Stages whose activations are written, too, separated by commas, such as "
        "relu,linear2. None by default.",
    )
    certify: bool = Field(
        True,
        description="Write the certificate of each decision; --no-certify takes less time.",
    )
    chunk_images: int = Field(
        4096,
        ge=1,
        le=65536,
        description="Images that are read, scored and written together: the most of an output "
        "file, and what is done again after an interruption.",
    )
    batch_images: int = Field(
        1024,
        ge=1,
        le=65536,
        description="Images of a run of the model; matters to the bits only where a runtime's "
        "depend on the batch (pt2, torchscript).",
    )
    workers: int = Field(
        0, ge=0, le=65536, description="Processes that hold the model; 0: one for each CPU of Ray."
    )
    cpus: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPUs that Ray may use on this machine; 0: as many as the process may use by "
        "its affinity and cgroup.",
    )
    object_store_mb: int = Field(
        256,
        ge=MIN_OBJECT_STORE_MB,
        le=2**20,
        description="MiB of shared memory for the images and results that are under way.",
    )
    address: str | None = Field(
        None,
        description="Address of a running Ray cluster, host:port, or auto for the one of this "
        "machine; without it, Ray runs on this machine for as long as the command.",
    )

    @field_validator("stages", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = [self.flag(name) for name in OF_A_CLUSTER if name in self.model_fields_set]
        if self.address and given:
            raise ValueError(
                f"{' and '.join(given)} and --address: the cluster has decided that; leave out "
                "either"
            )
        return self
