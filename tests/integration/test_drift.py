"""Drift on a real server: quiet for test images, loud for others, and quiet again after them."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from export.bundle import Bundle
from export.features import FEATURES
from forward_client import ForwardClient, Intervention
from tests.support.bundles import TINY_SHAPE, publish_random_bundle, random_images, with_reference
from tests.support.servers import RunningServer, scrape, start_server, wait_until

if TYPE_CHECKING:
    from training.data import Data

WINDOW = 500  # images; with at most 100 samples a second it is renewed in 5 s
CALLERS = 3
SECONDS = 120  # of a machine with much else to do


def drift(server: RunningServer) -> dict[str, float]:
    """Return the index of each feature that has one."""
    return {
        dict(labels)["feature"]: value
        for (name, labels), value in scrape(server).items()
        if name == "forward_drift_psi"
    }


def value(server: RunningServer, name: str) -> float:
    """Return a series without labels; 0 if it is not there."""
    return scrape(server).get((name, frozenset()), 0)


def samples(server: RunningServer) -> float:
    """Return how many images were sampled since the start."""
    return value(server, "forward_input_ink_count")


@contextmanager
def sending(server: RunningServer, pixels: np.ndarray) -> Iterator[None]:
    """Send images meanwhile, each a request of its own, from several callers."""
    ended = threading.Event()

    def send(first: int) -> None:
        with ForwardClient(server.address, timeout_seconds=SECONDS) as client:
            for number in count(first, CALLERS):
                if ended.is_set():
                    return
                client.predict(pixels[number % len(pixels)])

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(send, first) for first in range(CALLERS)]
        try:
            yield
        finally:
            ended.set()
            for caller in callers:
                caller.result()


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when it holds; a scrape takes the server as long as a few calls."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)


def wait_for_samples(server: RunningServer, more: int) -> None:
    wanted = samples(server) + more
    wait_for(lambda: samples(server) >= wanted)


def test_test_images_are_no_drift_and_inverted_ones_are(mnist: "Data") -> None:
    pixels = mnist.test.pixels().numpy()
    np.random.default_rng(0).shuffle(pixels)  # writers come one after the other
    with start_server("--drift-window", str(WINDOW)) as server:
        assert drift(server) == {}
        with sending(server, pixels):
            wait_for(lambda: set(drift(server)) == set(FEATURES))
            wait_for(lambda: max(drift(server).values()) < 0.1)
        with sending(server, 1 - pixels):
            wait_for_samples(server, WINDOW // 5)
        during = drift(server)
        assert min(during["intensity"], during["ink"]) > 0.25
        with sending(server, pixels):
            wait_for_samples(server, WINDOW)
            wait_for(lambda: max(drift(server).values()) < 0.1)
        assert value(server, "forward_drift_samples") == WINDOW < samples(server)
        classes = {
            dict(labels)["class"]: count
            for (name, labels), count in scrape(server).items()
            if name == "forward_predicted_class_total"
        }
        assert set(classes) == {str(digit) for digit in range(10)}
        assert sum(classes.values()) == samples(server)


@pytest.fixture
def referenced(tiny: Bundle, tmp_path: Path) -> Bundle:
    """A tiny bundle whose training images were random ones."""
    return with_reference(tiny, tmp_path / "referenced", random_images(5000, TINY_SHAPE))


def serve(bundle: Bundle, *arguments: str) -> tuple[str, ...]:
    folder = bundle.path.parent.parent
    return ("--models-dir", str(folder), "--model", bundle.manifest.name, *arguments)


def test_a_window_of_0_samples_nothing(referenced: Bundle) -> None:
    with start_server(*serve(referenced, "--drift-window", "0")) as server:
        with ForwardClient(server.address) as client:
            client.predict(random_images(1, TINY_SHAPE))
        assert {name for name, _ in scrape(server) if "drift" in name} == set()
        assert not [line for line in server.log() if "drift" in line["event"]]


def test_traces_are_sampled_but_not_what_was_changed(referenced: Bundle) -> None:
    dark, light = (np.full((1, *TINY_SHAPE), pixel, np.float32) for pixel in (0, 1))
    change = Intervention.zero("relu")
    with start_server(*serve(referenced)) as server, ForwardClient(server.address) as client:
        wait_until(lambda: bool(client.trace(dark)) and samples(server) == 3)
        for _ in range(50):
            client.trace(light, interventions=[change])
        assert samples(server) == 3
        wait_until(lambda: bool(client.trace(light)) and samples(server) == 4)
        assert value(server, "forward_input_intensity_sum") == 1


def test_a_new_version_has_its_own_reference_and_window(referenced: Bundle, tmp_path: Path) -> None:
    """The next has none, and the one after is of darker images."""
    folder = referenced.path.parent
    arguments = ("--reload-interval", "0", "--drift-window", str(WINDOW))
    with start_server(*serve(referenced, *arguments)) as server:
        with sending(server, random_images(999, TINY_SHAPE)):
            wait_for(lambda: value(server, "forward_drift_samples") > 9)
        assert "drift is not measured" not in str(server.log())

        def load(bundle: Bundle, version: int) -> None:
            shutil.copytree(bundle.path, folder / str(version))
            server.process.send_signal(signal.SIGHUP)
            shown = frozenset({("version", str(version))})
            wait_until(
                lambda: any(
                    name == "forward_model_info" and shown <= labels
                    for name, labels in scrape(server)
                )
            )

        second = publish_random_bundle(tmp_path / "models", "tiny")
        load(second, 2)
        assert value(server, "forward_drift_samples") == 0
        with sending(server, random_images(999, TINY_SHAPE)):
            time.sleep(0.5)
        assert value(server, "forward_drift_samples") == 0
        lines = [line for line in server.log() if line["event"] == "drift is not measured"]
        assert [line["version"] for line in lines] == [2]

        third = publish_random_bundle(tmp_path / "models", "tiny")
        dark = random_images(5000, TINY_SHAPE) / 4
        load(with_reference(third, tmp_path / "third", dark), 3)
        assert value(server, "forward_drift_samples") == 0
        with sending(server, random_images(999, TINY_SHAPE)):
            wait_for(lambda: drift(server).get("intensity", 0) > 0.25)
