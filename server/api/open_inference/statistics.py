"""What was computed since the server started, as Triton tells it: by the model's name and version.

The figures are those of the metrics: the bundle's name has what the batcher `predict` counts, the
name for traces what `trace` counts.
"""

from collections.abc import Iterator, Sequence

from export.bundle.manifest import Manifest
from inference import open_inference_pb2 as oip
from server.api.open_inference.names import check_version_text, served_names
from server.errors import model_not_found
from server.limits import RequestLimits
from server.observability.engine_metrics import BATCHERS, BatcherMetrics
from server.observability.histogram import Bucket, Observations
from server.observability.metrics import ServerMetrics

MILLISECONDS, NANOSECONDS = 1_000, 1_000_000_000  # in a second


def statistics_of(
    request: oip.ModelStatisticsRequest,
    manifest: Manifest,
    metrics: ServerMetrics,
    limits: RequestLimits,
) -> oip.ModelStatisticsResponse:
    """Return the statistics of the names and versions that are asked for.

    Raises:
        InvalidArgumentError: the version is no number.
        NotFoundError: there is no such name, or nothing was loaded under the version.
    """
    check_version_text(request.version, "version")
    metrics.update()
    engine, names = metrics.engine, served_names(manifest)
    versions = [each for each in engine.versions if request.version in {"", str(each)}]
    if request.name not in {"", *names} or not versions:
        name, version = request.name or manifest.name, request.version or "any"
        raise model_not_found(name, version, names, manifest.version)
    return oip.ModelStatisticsResponse(
        model_stats=[
            _statistics(name, version, engine.batcher(batcher, version), limits.max_batch_images)
            for name, batcher in zip(names, BATCHERS, strict=True)
            for version in versions
            if request.name in {"", name}
        ]
    )


def _statistics(
    name: str, version: int, counted: BatcherMetrics, max_batch_images: int
) -> oip.ModelStatistics:
    queue, compute = _duration(counted.queue_seconds), _duration(counted.run_seconds)
    encode, none = _duration(counted.encode_seconds), oip.StatisticDuration()
    buckets, images = counted.run_images.totals()
    return oip.ModelStatistics(
        name=name,
        version=str(version),
        last_inference=int(counted.last_run * MILLISECONDS),
        inference_count=int(images),
        execution_count=compute.count,
        inference_stats=oip.InferStatistics(
            success=oip.StatisticDuration(count=encode.count, ns=queue.ns + compute.ns + encode.ns),
            fail=_duration(counted.failed_seconds),
            queue=queue,
            compute_input=none,
            compute_infer=compute,
            compute_output=encode,
            cache_hit=none,
            cache_miss=none,
        ),
        batch_stats=_sizes(buckets, counted.sized_seconds.totals(), max_batch_images),
    )


def _duration(observed: Observations) -> oip.StatisticDuration:
    buckets, seconds = observed.totals()
    _, count, *_ = buckets[-1]
    return oip.StatisticDuration(count=int(count), ns=round(seconds * NANOSECONDS))


def _sizes(
    buckets: Sequence[Bucket], seconds: Sequence[float], max_batch_images: int
) -> Iterator[oip.InferBatchStatistics]:
    """Yield the runs of each size, with their time; `buckets` have those up to a bound."""
    before = 0.0
    for (bound, up_to_it, *_), own_seconds in zip(buckets, seconds, strict=True):
        if runs := int(up_to_it - before):
            yield oip.InferBatchStatistics(
                batch_size=max_batch_images if bound == "+Inf" else int(float(bound)),
                compute_input=oip.StatisticDuration(),
                compute_infer=oip.StatisticDuration(
                    count=runs, ns=round(own_seconds * NANOSECONDS)
                ),
                compute_output=oip.StatisticDuration(),
            )
        before = up_to_it
