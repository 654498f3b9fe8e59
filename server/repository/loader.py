"""Loads a bundle: verified, warmed up, with an instance of its own."""

from dataclasses import replace
from math import prod
from pathlib import Path

import structlog

from export.bundle import Bundle
from export.bundle.reference import read_reference
from export.errors import BundleError
from server.config import ServerSettings
from server.engine.admission import AdmissionControl
from server.engine.batcher import BatchingConfig
from server.engine.cpus import available_cpus
from server.engine.instance import ModelInstance
from server.engine.model import ServedModel, load_verified, warm_up
from server.errors import NeedsRestartError, StartError
from server.limits import RequestLimits
from server.observability.drift import DriftMonitor
from server.observability.metrics import ServerMetrics
from server.repository.current import ActiveModel, activate

FLOAT32_BYTES = 4
MAX_GRPC_BYTES = 2**31 - 1
# A request may be this much larger than the largest batch before gRPC itself
# refuses it: so that a batch over the limit gets the error that names it.
RECEIVE_SLACK_FACTOR = 2
RECEIVE_SLACK_BYTES = 1 << 20
GPU_DRIVER = Path("/dev/nvidiactl")  # there if the machine, or the container, has a GPU
REQUEST_OVERHEAD_BYTES = 1024  # what a request has beside its pixels
# A run of so many images takes about a millisecond, and to hand it to a thread and to
# wait for the interpreter lock on both sides costs more CPU than that is worth.
INLINE_IMAGES = 512
NO_REFERENCE = (
    "the version was published without a drift reference; "
    "`python -m training --add-reference FOLDER` adds it"
)

log = structlog.get_logger()


class ModelLoader:
    """Loads bundles with the settings of this process.

    The first one determines the largest request that gRPC accepts, which can't change later.
    """

    def __init__(
        self,
        settings: ServerSettings,
        limits: RequestLimits,
        admission: AdmissionControl,
        metrics: ServerMetrics,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._admission = admission
        self._metrics = metrics
        self.threads = settings.threads or available_cpus()
        self._device = settings.device
        self.max_receive_bytes = 0  # of a request; nothing is loaded yet

    def load(self, bundle: Bundle) -> ActiveModel:
        """Return a bundle, ready to answer.

        Raises:
            ExportError: its verification failed.
            StartError: it is the first, and its requests are larger than gRPC can take.
            NeedsRestartError: it is another, and its requests are larger than this process takes.
        """
        settings = self._settings
        loaded = load_verified(bundle, settings.runtime, self._device, self.threads)
        model = replace(loaded, compare_programs=settings.compare_programs)
        _log_fallback(model)
        if self.max_receive_bytes:
            self._check_requests(model)
        else:
            self.max_receive_bytes = receive_limit(model, self._limits)
            if model.no_gpu:  # do not look for one again at each version
                self._device = "cpu"
        warm_up(model, settings.max_batch_images)
        batching, drift = batching_config(settings, model), self._drift_monitor(model)
        instance = ModelInstance(model, self._admission, batching, self._metrics, drift)
        return activate(instance, self._limits.max_batch_images)

    def _drift_monitor(self, model: ServedModel) -> DriftMonitor | None:
        """Return what measures the drift of a version; None, and a line in the log, without."""
        window, manifest, reason = self._settings.drift_window, model.manifest, NO_REFERENCE
        if not window:
            return None
        reference = None
        try:
            reference = read_reference(model.bundle)
        except BundleError as error:
            reason = str(error)
        if reference is None:
            log.warning("drift is not measured", version=manifest.version, reason=reason)
            return None
        return DriftMonitor(reference, manifest.labels, self._metrics.drift, window)

    def _check_requests(self, model: ServedModel) -> None:
        needed = largest_request_bytes(model, self._limits) + REQUEST_OVERHEAD_BYTES
        if needed > self.max_receive_bytes:
            raise NeedsRestartError(
                f"{model.manifest.name!r} version {model.manifest.version} takes images of shape "
                f"{list(model.manifest.input_shape)}: a request of {self._limits.max_batch_images} "
                f"needs {needed} bytes, and this process takes {self.max_receive_bytes} since its "
                "start; restart the server to serve it"
            )


def _log_fallback(model: ServedModel) -> None:
    """Say that "auto" did not get a GPU, if it did not."""
    if not model.no_gpu:
        return
    if GPU_DRIVER.exists():
        log.info("device falls back to cpu", reason=model.no_gpu)
    else:
        log.debug("no gpu", reason=model.no_gpu)


def largest_request_bytes(model: ServedModel, limits: RequestLimits) -> int:
    """Return the bytes of the pixels of the largest batch."""
    return limits.max_batch_images * prod(model.manifest.input_shape) * FLOAT32_BYTES


def receive_limit(model: ServedModel, limits: RequestLimits) -> int:
    """Return the most bytes of a request that gRPC takes in.

    Raises:
        StartError: more than gRPC can take.
    """
    largest = largest_request_bytes(model, limits)
    if largest > MAX_GRPC_BYTES:
        raise StartError(
            f"--max-batch-images {limits.max_batch_images} makes requests of {largest} bytes; "
            f"gRPC takes at most {MAX_GRPC_BYTES}"
        )
    return min(largest * RECEIVE_SLACK_FACTOR + RECEIVE_SLACK_BYTES, MAX_GRPC_BYTES)


def batching_config(settings: ServerSettings, model: ServedModel) -> BatchingConfig:
    """Return the batching configuration of a model."""
    return BatchingConfig(
        max_batch_images=settings.max_batch_images,
        max_queue_delay_seconds=settings.max_queue_delay_ms / 1000,
        # A run of torch's waits for another in the other batcher's thread.
        inline_images=INLINE_IMAGES if model.runner.batch_invariant else 0,
        # Requests share a run only where that changes no bit of their results.
        merge=model.runner.batch_invariant,
    )
