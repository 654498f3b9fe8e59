"""Drift: the index by its definition, the window, and what is sampled."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from export.bundle import Bundle
from export.bundle.reference import DriftReference, count_features, read_reference
from export.features import FEATURES, Feature
from export.runtimes import open_runner
from server.config import MIN_DRIFT_SAMPLES
from server.observability import drift
from server.observability.drift import MAX_PENDING, DriftMetrics, DriftMonitor, stability_index

if TYPE_CHECKING:
    from training.data import Data

LABELS = ("cat", "dog", "owl")
SHAPE = (3, 5)
HISTOGRAMS = (
    st.integers(2, 20)
    .flatmap(
        lambda bins: st.tuples(
            *[st.lists(st.integers(0, 60_000), min_size=bins, max_size=bins)] * 2
        )
    )
    .filter(lambda pair: all(map(sum, pair)))
)


def index_by_definition(expected: Sequence[int], found: Sequence[int]) -> float:
    """Return the index as the page about drift defines it, a term at a time."""
    terms = []
    for wanted, got in zip(expected, found, strict=True):
        q = (wanted / sum(expected) + 0.0001) / (1 + 0.0001 * len(expected))
        p = (got / sum(found) + 0.0001) / (1 + 0.0001 * len(found))
        terms.append((p - q) * math.log(p / q))
    return math.fsum(terms)


@given(HISTOGRAMS)
def test_the_index_is_that_of_its_definition(pair: tuple[list[int], list[int]]) -> None:
    expected, found = pair
    index = stability_index(np.array(expected), np.array(found))
    assert index == pytest.approx(index_by_definition(expected, found), rel=1e-9, abs=1e-12)
    assert index >= 0
    assert math.isfinite(index)
    assert index == pytest.approx(stability_index(np.array(found), np.array(expected)))


@given(HISTOGRAMS, st.integers(1, 100))
def test_the_index_of_equal_shares_is_zero(pair: tuple[list[int], list[int]], times: int) -> None:
    counts = np.array(pair[0])
    assert stability_index(counts, counts * times) == pytest.approx(0, abs=1e-12)


def test_the_index_without_empty_bins_is_the_textbooks() -> None:
    """Of 10, 20 and 70 percent against 20, 30 and 50: 0.069 + 0.041 + 0.067."""
    index = stability_index(np.array([2000, 3000, 5000]), np.array([1000, 2000, 7000]))
    assert index == pytest.approx(0.1771, abs=2e-4)


def images_of(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pixels = rng.random((count, *SHAPE), np.float32) ** 2
    return pixels, rng.normal(0, 3, (count, len(LABELS))).astype(np.float32)


def monitor_of(
    reference: DriftReference | None = None,
    window: int = MIN_DRIFT_SAMPLES,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[DriftMonitor, DriftMetrics]:
    metrics = DriftMetrics(CollectorRegistry())
    reference = reference or count_features([images_of(1000)], len(LABELS), "")
    monitor = DriftMonitor(reference, LABELS, metrics, window, clock)
    metrics.follow(lambda: monitor)
    return monitor, metrics


def observe(monitor: DriftMonitor, pixels: np.ndarray, logits: np.ndarray) -> None:
    for image, scores in zip(pixels, logits, strict=True):
        monitor.observe(image, scores)


def exported(metrics: DriftMetrics) -> dict[str, float]:
    """Return the samples that have no bucket, by name and the values of their labels."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in metrics.collect()
        for sample in family.samples
        if "le" not in sample.labels
    }


@pytest.mark.parametrize("count", [MIN_DRIFT_SAMPLES, 777, 2000])
def test_the_window_has_the_last_images(count: int) -> None:
    pixels, logits = images_of(count, seed=1)
    reference = count_features([images_of(1000)], len(LABELS), "")
    monitor, _ = monitor_of(reference, window=600)
    observe(monitor, pixels, logits)
    last = count_features([(pixels[-600:], logits[-600:])], len(LABELS), "")
    samples, indices = monitor.indices()
    assert samples == min(count, 600)
    assert indices == {
        feature: pytest.approx(
            index_by_definition(
                reference.histograms[feature].counts, last.histograms[feature].counts
            )
        )
        for feature in FEATURES
    }


def test_fewer_images_than_enough_have_no_index() -> None:
    monitor, metrics = monitor_of()
    pixels, logits = images_of(MIN_DRIFT_SAMPLES)
    observe(monitor, pixels[:-1], logits[:-1])
    assert exported(metrics)["forward_drift_samples"] == MIN_DRIFT_SAMPLES - 1
    assert "forward_drift_psi ink" not in exported(metrics)
    observe(monitor, pixels[-1:], logits[-1:])
    found = exported(metrics)
    assert {name for name in found if "psi" in name} == {f"forward_drift_psi {f}" for f in FEATURES}


def test_every_sample_is_exported_once() -> None:
    monitor, metrics = monitor_of()
    pixels, logits = images_of(MAX_PENDING * 3 + 5, seed=2)
    for start in range(0, len(pixels), 50):  # scraped in between
        observe(monitor, pixels[start : start + 50], logits[start : start + 50])
        found = exported(metrics)
    assert found["forward_input_intensity_count"] == len(pixels)
    assert found["forward_input_intensity_sum"] == pytest.approx(pixels.mean(axis=(1, 2)).sum())
    assert found["forward_input_ink_sum"] == pytest.approx((pixels > 0.5).mean(axis=(1, 2)).sum())
    classes = np.bincount(logits.argmax(axis=1), minlength=3)
    for label, count in zip(LABELS, classes, strict=True):
        assert found[f"forward_predicted_class_total {label}"] == count


def test_classes_are_there_before_the_first_image() -> None:
    found = exported(monitor_of()[1])
    assert [found[f"forward_predicted_class_total {label}"] for label in LABELS] == [0, 0, 0]


def test_nothing_is_exported_without_a_monitor() -> None:
    assert exported(DriftMetrics(CollectorRegistry())) == {}


def test_both_types_of_pixels_are_the_same_image() -> None:
    bytes_ = np.random.default_rng(0).integers(0, 256, (600, *SHAPE), np.uint8)
    logits = images_of(600)[1]
    as_bytes, as_floats = monitor_of()[0], monitor_of()[0]
    observe(as_bytes, bytes_, logits)
    observe(as_floats, bytes_ / np.float32(255), logits)
    assert as_bytes.indices() == as_floats.indices()


def test_a_sample_outlives_the_memory_that_it_was_in() -> None:
    monitor, metrics = monitor_of()
    pixels, logits = images_of(3)
    expected = pixels.mean(axis=(1, 2)).sum()
    observe(monitor, pixels, logits)
    pixels[:], logits[:] = 1, 0
    assert exported(metrics)["forward_input_intensity_sum"] == pytest.approx(expected)


def test_large_images_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MAX_PENDING_BYTES", 4 * 15 * 5)
    monitor, _ = monitor_of()
    waiting = []
    for image, scores in zip(*images_of(12), strict=True):
        monitor.observe(image, scores)
        waiting.append(len(monitor._pending))
    assert max(waiting) == 4


def test_threads_lose_no_sample() -> None:
    monitor, metrics = monitor_of()
    pixels, logits = images_of(400)
    threads = [threading.Thread(target=observe, args=(monitor, pixels, logits)) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        monitor.indices()
    assert exported(metrics)["forward_input_ink_count"] == 1600


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 0.03)), min_size=1, max_size=200))
def test_at_most_every_fourth_request_and_100_a_second(runs: list[tuple[int, float]]) -> None:
    """Runs of so many requests, so many seconds after the one before."""
    taken, now, requests = list[tuple[int, float]](), 50.0, 0
    monitor, _ = monitor_of(clock=lambda: now)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(monitor, "observe", lambda *_: taken.append((requests, now)))
        for count, seconds in runs:
            now += seconds
            requests += count
            pixels, logits = images_of(count)
            monitor.sample([image[np.newaxis] for image in pixels], logits)
    assert len(taken) >= 1, "the first is taken"
    for (before, then), (after, later) in pairwise(taken):
        assert after - before >= 4
        assert later - then >= 0.00999


def test_a_sample_is_the_first_image_of_its_request() -> None:
    monitor, taken = monitor_of()[0], list[tuple[np.ndarray, np.ndarray]]()
    pixels, logits = images_of(12)
    requests = [pixels[:1], pixels[1:6], pixels[6:8], pixels[8:]]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(monitor, "observe", lambda *pair: taken.append(pair))
        patched.setattr(drift, "MIN_SECONDS", 0)
        for _ in range(400):
            monitor.sample(requests, logits)
    firsts = {0, 1, 6, 8}
    found = {int(np.flatnonzero((logits == scores).all(axis=1))[0]) for _, scores in taken}
    assert found == firsts, "each request of a run is chosen at times"
    for image, scores in taken:
        row = np.flatnonzero((logits == scores).all(axis=1))[0]
        np.testing.assert_array_equal(image, pixels[row])


def blurred(pixels: np.ndarray) -> np.ndarray:
    """Return each pixel as the mean of the 5 x 5 around it; beyond the edge is 0."""
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))
    around = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    return around.mean(axis=(3, 4)).astype(np.float32)


CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[Feature, ...]]] = {
    "inverted": (lambda pixels: 1 - pixels, ("intensity", "ink", "class", "confidence", "gap")),
    "blurred": (blurred, ("ink", "confidence", "gap")),
    "constant": (
        lambda pixels: np.full_like(pixels, 0.13),
        ("intensity", "ink", "class", "confidence", "gap"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_drift_until_they_have_left(
    bundle: Bundle, mnist: "Data", change: str
) -> None:
    reference = read_reference(bundle)
    assert reference is not None
    runner, metrics = open_runner(bundle, "onnx", "cpu"), DriftMetrics(CollectorRegistry())
    monitor = DriftMonitor(reference, bundle.manifest.labels, metrics, 2048)
    changed, features = CHANGES[change]
    pixels = mnist.test.pixels().numpy()
    parts = {
        "before": pixels[:2048],
        "during": changed(pixels[2048:4096]),
        "after": pixels[4096:6144],
    }
    found = {}
    for when, images in parts.items():
        observe(monitor, images, runner.predict(images))
        found[when] = monitor.indices()[1]
    assert max(found["before"].values()) < 0.1
    assert max(found["after"].values()) < 0.1
    assert {feature for feature in features if found["during"][feature] <= 0.25} == set()
