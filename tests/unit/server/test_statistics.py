"""Statistics by name and version: from the metrics, and nothing of them is lost."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import open_bundle
from forward.v1 import forward_pb2 as pb
from inference import open_inference_pb2 as oip
from server.api.open_inference.statistics import statistics_of
from server.errors import InvalidArgumentError, NotFoundError
from server.limits import RequestLimits
from server.observability.buckets import IMAGES_BUCKETS
from server.observability.engine_metrics import BATCHER_OF_METHOD, MAX_VERSIONS
from server.observability.metrics import ServerMetrics
from tests.support.bundles import MODELS_DIR

MANIFEST = open_bundle(MODELS_DIR / "mnist" / "1").manifest
MOST_IMAGES = 5000
LIMITS = RequestLimits(MOST_IMAGES, 1 << 20)
RUNS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, MOST_IMAGES)), max_size=20)


def statistics(
    metrics: ServerMetrics, name: str = "", version: str = ""
) -> list[oip.ModelStatistics]:
    asked = oip.ModelStatisticsRequest(name=name, version=version)
    return list(statistics_of(asked, MANIFEST, metrics, LIMITS).model_stats)


@given(RUNS)
def test_runs_are_told_by_version_and_size(runs: list[tuple[int, int]]) -> None:
    metrics, bounds = ServerMetrics(), [*map(int, IMAGES_BUCKETS), MOST_IMAGES]
    for version in (1, 2, 3):
        metrics.engine.add_version(version)
    for version, images in runs:
        metrics.engine.batcher("trace", version).observe_run(images, 1, images / 4)
    found = {int(each.version): each for each in statistics(metrics, "mnist_trace")}
    assert list(found) == [1, 2, 3]
    for version, each in found.items():
        sizes = [images for of, images in runs if of == version]
        assert each.inference_count == sum(sizes)
        assert each.execution_count == each.inference_stats.compute_infer.count == len(sizes)
        assert each.inference_stats.compute_infer.ns == sum(sizes) * 250_000_000
        expected, times = Counter[int](), Counter[int]()
        for size in sizes:
            bound = next(bound for bound in bounds if bound >= size)
            expected[bound] += 1
            times[bound] += size * 250_000_000
        told = {size.batch_size: size.compute_infer for size in each.batch_stats}
        assert {size: infer.count for size, infer in told.items()} == expected
        assert {size: infer.ns for size, infer in told.items()} == times
        assert list(told) == sorted(told)
        assert (each.last_inference > 0) == bool(sizes)
    assert all(not each.inference_count for each in statistics(metrics, "mnist"))


def test_many_versions_lose_no_count_in_the_metrics() -> None:
    metrics = ServerMetrics()
    for version in range(1, MAX_VERSIONS + 11):
        metrics.engine.add_version(version)
        for batcher in ("predict", "trace"):
            metrics.engine.batcher(batcher, version).observe_run(2, 1, 0.5)
        metrics.engine.add_version(1)  # it is served again, so it is none of the first ones
    kept = [1, *range(12, MAX_VERSIONS + 11)]
    assert metrics.engine.versions == kept
    runs = metrics.registry.get_sample_value("forward_run_images_count", {"batcher": "predict"})
    assert runs == MAX_VERSIONS + 10
    assert sum(each.execution_count for each in statistics(metrics, "mnist")) == len(kept)


def test_a_call_that_failed_counts_for_the_served_version() -> None:
    metrics = ServerMetrics()
    for version in (1, 2):
        metrics.engine.add_version(version)
    metrics.engine.served_version = 2
    trace = "/forward.v1.ForwardService/Trace"
    metrics.engine.fail(trace, None, 0, 0.25)
    metrics.engine.fail("/inference.GRPCInferenceService/ModelInfer", "trace", 1, 0.5)
    metrics.engine.fail("/forward.v1.ForwardService/GetModel", None, 0, 1)
    told = [(each.name, each.version, each.inference_stats.fail) for each in statistics(metrics)]
    assert [(name, version, fail.count, fail.ns) for name, version, fail in told] == [
        ("mnist", "1", 0, 0),
        ("mnist", "2", 0, 0),
        ("mnist_trace", "1", 1, 500_000_000),
        ("mnist_trace", "2", 1, 250_000_000),
    ]


def test_every_method_with_a_batcher_is_there() -> None:
    services = (
        pb.DESCRIPTOR.services_by_name["ForwardService"],
        oip.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    )
    there = {f"/{each.full_name}/{method.name}" for each in services for method in each.methods}
    assert set(BATCHER_OF_METHOD) <= there


def test_what_the_lane_counts_is_read_before_it_is_told() -> None:
    metrics = ServerMetrics()
    metrics.engine.add_version(1)
    counted = metrics.engine.batcher("predict", 1)
    metrics.add_scrape_callback(lambda: counted.observe_run(3, 1, 0.5))
    assert [each.inference_count for each in statistics(metrics)] == [3, 0]


@given(st.text(), st.text())
def test_any_name_and_version_are_told_or_refused(name: str, version: str) -> None:
    metrics = ServerMetrics()
    metrics.engine.add_version(1)
    try:
        found = statistics(metrics, name, version)
    except InvalidArgumentError:
        assert not version.isdecimal() or not version.isascii()
    except NotFoundError:
        assert name not in {"", "mnist", "mnist_trace"} or version not in {"", "1"}
    else:
        assert found
        assert name in {"", "mnist", "mnist_trace"}
        assert version in {"", "1"}


@pytest.mark.parametrize("version", ["01", "1" * 5000])
def test_a_version_is_found_by_its_plain_digits(version: str) -> None:
    metrics = ServerMetrics()
    metrics.engine.add_version(1)
    with pytest.raises(NotFoundError):
        statistics(metrics, "mnist", version)
