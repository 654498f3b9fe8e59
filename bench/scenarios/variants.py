"""Versions by the dozen: a few networks, published in turn, each time under the next number."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.load.callers import REQUESTS
from bench.scenarios.check import WrongAnswerError
from export.architecture import mlp
from export.bundle import find_bundle, open_bundle
from export.bundle.manifest import Manifest
from export.bundle.publishing import staged_bundle, write_bundle
from export.network import Network, weights_of
from export.runtimes import open_runner
from export.runtimes.numpy import NumpyRunner
from export.writers import write_all

MODEL = "variants"
VARIANTS = 4
BATCHES = (1, 1, 1, 1, 1, 1, 8, 64)  # images of the requests; several in a group, and one alone
KEPT = 3  # versions in the folder
NEAR, APART = 1e-4, 1e-2  # logits: of two ways to compute one variant, of two variants


class Variants:
    """Publishes version v with the weights of variant v % VARIANTS, untrained, of MNIST's shape."""

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._manifest = find_bundle(Path("models"), "mnist", None).manifest.model_copy(
            update={"name": MODEL, "files": (), "parity": (), "metrics": {}}
        )
        self._weights, self._contents = [], []
        for seed in range(VARIANTS):
            torch.manual_seed(seed)
            network = Network(mlp((28, 28), [128], 10))
            weights = weights_of(network)
            self._weights.append(weights)
            self._contents.append(write_all(network.stages, weights, 0, 1))
            self._stages = network.stages

    @property
    def manifest(self) -> Manifest:
        """What the manifests of all versions have in common."""
        return self._manifest.model_copy(update={"stages": self._stages})

    def publish(self) -> int:
        """Publish the next version in one step, and remove the oldest; return its number."""
        with staged_bundle(self._models_dir, MODEL) as (folder, version):
            manifest = self.manifest.model_copy(update={"version": version})
            write_bundle(folder, manifest, self._contents[version % VARIANTS])
        old = self._models_dir / MODEL / str(version - KEPT)
        if old.exists():
            shutil.rmtree(old)
        return version

    def write_requests(self, folder: Path) -> None:
        """Write the callers' requests, and the logits that each variant has for them.

        Raises:
            WrongAnswerError: ONNX Runtime is not near NumPy in float64, or two variants
                are too much alike to be told apart.
        """
        pixels = np.random.default_rng(0)
        batches = [pixels.integers(0, 256, (n, 28, 28), np.uint8) for n in BATCHES]
        arrays = {f"images-{n:03}": batch for n, batch in enumerate(batches)}
        by_variant = []
        for variant in range(VARIANTS):
            found = self._logits(variant, batches, folder / f"variant-{variant}")
            arrays |= {f"logits-{variant:03}-{n:03}": part for n, part in enumerate(found)}
            by_variant.append(np.concatenate(found))
        for one in range(VARIANTS):
            for other in range(one):
                difference = np.abs(by_variant[one] - by_variant[other]).max(axis=1)
                if difference.min() < APART:
                    raise WrongAnswerError(f"variants {other} and {one} are too much alike")
        np.savez(folder / REQUESTS, allow_pickle=False, **arrays)

    def _logits(
        self, variant: int, batches: Sequence[np.ndarray], folder: Path
    ) -> list[np.ndarray]:
        folder.mkdir()
        write_bundle(folder, self.manifest, self._contents[variant])
        runner = open_runner(open_bundle(folder), "onnx", "cpu")
        exact = NumpyRunner(self._stages, self._weights[variant])
        found = []
        for batch in batches:
            images = batch / np.float32(255)
            found.append(runner.predict(images))
            expected = exact.trace(images)[self._stages[-1].name]
            if not np.allclose(found[-1], expected, atol=NEAR, rtol=0):
                raise WrongAnswerError(f"variant {variant}: ONNX Runtime is not near NumPy")
        return found
