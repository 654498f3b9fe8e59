"""The served model: a bundle, checked, opened in a runtime and warm."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import structlog

from export.architecture import Device, Runtime, flops_per_image, parameter_counts
from export.attribution.network import Network
from export.bundle import Bundle
from export.bundle.manifest import Manifest
from export.bundle.record import TrainingRecord, read_record
from export.bundle.weights import read_weights
from export.errors import BundleError, RuntimeUnavailableError
from export.parity.certificates import Prover
from export.parity.vectors import check_vectors
from export.runtimes import InterveningRunner, open_runner
from server.engine.compared import ComparedRuntimes
from server.observability.metrics import ServerMetrics
from server.observability.model_metrics import ModelLabels

log = structlog.get_logger()


@dataclass(frozen=True)
class ServedModel:
    """A manifest, the runner that computes it, and what follows from its stages."""

    manifest: Manifest
    runner: InterveningRunner
    flops_per_image: dict[str, int]
    parameter_counts: dict[str, int]
    network: Network  # its parameters, for attribution and certificates
    bundle: Bundle  # from which comparisons open other runtimes
    # In memory, at most MAX_SNAPSHOT_BYTES and MAX_HISTORY_BYTES: it is served like the model also
    # when the folder is gone or replaced, and no call reads and hashes files on the event loop.
    record: TrainingRecord
    self_check_ratio: float = 0.0  # largest error of the logits, over its bound
    compare_programs: bool = False  # comparisons may open runtimes whose files are programs
    no_gpu: str = ""  # why "auto" did not get one; empty if it did or was not asked

    @cached_property
    def prover(self) -> Prover:
        """What proves the bounds of traces and certifies their decisions."""
        weights: dict[str, np.ndarray] = {}
        for name, layer in self.network.layers.items():
            weights |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
        return Prover(self.manifest.stages, weights)

    @cached_property
    def compared(self) -> ComparedRuntimes:
        """The runtimes that comparisons run, freed with the version."""
        return ComparedRuntimes(
            self.bundle, self.prover, self.runner, programs=self.compare_programs
        )

    def publish_info(self, metrics: ServerMetrics) -> None:
        """Set this as the served model in the metrics."""
        runner = self.runner
        labels = ModelLabels(
            self.manifest.name,
            str(self.manifest.version),
            runner.runtime,
            runner.device,
            runner.provider,
            runner.precision,
            self.manifest.sha256,
        )
        metrics.model.set_model(labels, self.self_check_ratio)
        metrics.engine.served_version = self.manifest.version


def load_verified(
    bundle: Bundle, runtime: Runtime, device: Device | Literal["auto"], threads: int
) -> ServedModel:
    """Open a bundle in a runtime and verify it.

    Every file is checked, and every stage of the recorded vectors is computed
    and compared before the model is served.

    Raises:
        BundleError: a file is not what the manifest says.
        ParityError: the runtime does not compute the recorded vectors; it names the stage.
        RuntimeUnavailableError: the runtime is not installed, or "cuda" is not available.
    """
    bundle.verify_files()
    runner, no_gpu = _open_runner(bundle, runtime, device, threads)
    check = check_vectors(bundle, runner)
    log.info("self-check passed", runtime=runtime, provider=runner.provider, vectors=check.images)
    stages = bundle.manifest.stages
    return ServedModel(
        manifest=bundle.manifest,
        runner=runner,
        flops_per_image=flops_per_image(stages),
        parameter_counts=parameter_counts(stages),
        network=Network.of(stages, read_weights(bundle), runner.precision),
        bundle=bundle,
        record=_record(bundle),
        self_check_ratio=check.error_ratio,
        no_gpu=no_gpu,
    )


def _record(bundle: Bundle) -> TrainingRecord:
    """Return the record of the training, an empty one if it is wrong: predictions need none."""
    try:
        return read_record(bundle)
    except BundleError as error:
        log.warning("training record is not served", reason=str(error))
        return TrainingRecord()


def _open_runner(
    bundle: Bundle, runtime: Runtime, device: Device | Literal["auto"], threads: int
) -> tuple[InterveningRunner, str]:
    """Return the runner, and why "auto" did not get a GPU."""
    if device != "auto":
        return open_runner(bundle, runtime, device, threads=threads), ""
    try:
        return open_runner(bundle, runtime, "cuda", threads=threads), ""
    except RuntimeUnavailableError as error:
        return open_runner(bundle, runtime, "cpu", threads=threads), str(error)


def warm_up(model: ServedModel, max_batch_images: int) -> None:
    """Run the smallest and the largest batch: the first runs allocate memory."""
    names = [stage.name for stage in model.manifest.stages]
    for images in (1, max_batch_images):
        batch = np.zeros((images, *model.manifest.input_shape), np.float32)
        model.runner.predict(batch)
        model.runner.trace(batch, names)
