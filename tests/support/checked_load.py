"""Callers whose every answer is compared with the oracle of the version that it names."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from export.bundle import Bundle
from export.bundle.weights import read_weights
from export.runtimes.numpy import NumpyRunner
from forward_client import ForwardClient, ForwardError
from forward_client.results import Prediction
from tests.support.bundles import TINY_SHAPE, random_images
from tests.support.servers import RunningServer, wait_until

CALLERS = 4
PAUSE_SECONDS = 0.002  # of a caller: some call is under way at any time, and a processor is free
IMAGES = random_images(3, TINY_SHAPE)
NEAR, APART = 1e-5, 1e-2  # logits of one bundle from two runtimes, and of two bundles


def oracle(bundle: Bundle, images: np.ndarray = IMAGES) -> np.ndarray:
    """Return the logits of a bundle's weights by NumPy in float64, [N, classes]."""
    stages = bundle.manifest.stages
    return NumpyRunner(stages, read_weights(bundle)).trace(images)[stages[-1].name]


class CheckedLoad:
    """What is expected of each version, and what came."""

    def __init__(self) -> None:
        self._expected: dict[int, list[np.ndarray]] = {}
        self._unmatched: list[Prediction] = []
        self._ended = threading.Event()
        self._lock = threading.Lock()  # of what is counted
        self.answers: Counter[int] = Counter()  # by version; of Predict alone, for streams lag
        self.all_answers: Counter[int] = Counter()  # also those of the stream
        self.failed: list[str] = []

    def expect(self, bundle: Bundle) -> Bundle:
        """Take a bundle's answers for right under its version."""
        logits = oracle(bundle)
        for others in self._expected.values():
            for other in others:
                assert np.abs(logits - other).max() > APART, "these two could not be told apart"
        self._expected.setdefault(bundle.manifest.version, []).append(logits)
        return bundle

    def wait_for(self, version: int, answers: int = 20) -> None:
        """Wait until so many more answers came from a version."""
        before = self.answers[version]
        wait_until(lambda: self.answers[version] >= before + answers or bool(self.failed), 60)
        assert not self.failed

    @contextmanager
    def on(self, server: RunningServer) -> Iterator[None]:
        """Call a server all the time; in the end nothing may have failed or been wrong."""
        works = [self._call] * CALLERS + [self._stream]
        threads = [threading.Thread(target=self._run, args=(work, server)) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(60)
        assert not self.failed
        assert self.answers.total() > 0
        assert not [each for each in self._unmatched if not self._is_right(each)]

    def _run(self, work: Callable[[ForwardClient], None], server: RunningServer) -> None:
        try:
            with ForwardClient(server.address, timeout_seconds=300) as client:
                work(client)
        except Exception as error:  # noqa: BLE001 (the test says what failed)
            self.failed.append(repr(error))

    def _call(self, client: ForwardClient) -> None:
        while not self._ended.is_set():
            answer = client.predict(IMAGES)
            self._check(answer)
            self.answers[answer.model_version] += 1
            time.sleep(PAUSE_SECONDS)

    def _stream(self, client: ForwardClient) -> None:
        for answer in client.predict_stream(self._batches()):
            if isinstance(answer, ForwardError):
                raise answer
            self._check(answer)

    def _batches(self) -> Iterator[np.ndarray]:
        while not self._ended.is_set():
            yield IMAGES
            time.sleep(PAUSE_SECONDS)

    def _check(self, answer: Prediction) -> None:
        with self._lock:
            self.all_answers[answer.model_version] += 1
        if not self._is_right(answer):  # perhaps it is expected a moment later
            self._unmatched.append(answer)

    def _is_right(self, answer: Prediction) -> bool:
        right = self._expected.get(answer.model_version, [])
        return any(np.allclose(answer.logits, logits, atol=NEAR, rtol=0) for logits in right)
