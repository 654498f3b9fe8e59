"""Verify a published bundle: its files against their hashes, its runtimes against its weights."""

import importlib.util

import numpy as np

from export.architecture import Runtime
from export.bundle import Bundle
from export.errors import HOW_TO_GET_TORCH, RuntimeUnavailableError
from export.manifest import Manifest, RuntimeParity
from export.parity import measure
from export.runners import open_runner

RUNTIMES: tuple[Runtime, ...] = ("eager", "torchscript", "onnx")
PROBE_IMAGES = 256


def has_train_extra() -> bool:
    """Tell whether the packages are installed that parity needs."""
    return all(importlib.util.find_spec(name) for name in ("torch", "safetensors"))


def verify_parity(bundle: Bundle, images: np.ndarray | None = None) -> list[RuntimeParity]:
    """Compare every runtime with the bundle's weights, on images or on probes.

    Images are FLOAT32 [N, H, W] in the manifest's range.

    Raises:
        RuntimeUnavailableError: the train extra is not installed.
        ParityError: a runtime departs from the weights.
        BundleError: a file is damaged.
    """
    if not has_train_extra():
        raise RuntimeUnavailableError(f"parity needs torch; {HOW_TO_GET_TORCH}")
    from export.weights import read_weights  # noqa: PLC0415 (in the extra)

    stages = bundle.manifest.stages
    weights = read_weights(bundle)
    if images is None:
        images = probe_images(bundle.manifest)
    return [
        measure(open_runner(bundle, runtime, "cpu"), stages, weights, images)
        for runtime in RUNTIMES
    ]


def probe_images(manifest: Manifest) -> np.ndarray:
    """Return synthetic images, FLOAT32 [N, H, W], for a bundle whose dataset is not at hand.

    All-dark, all-bright, and random ones of every density between; always the same.
    """
    generator = np.random.default_rng(0)
    shape = (PROBE_IMAGES, *manifest.input_shape)
    density = np.linspace(0, 1, PROBE_IMAGES).reshape(-1, *[1] * len(manifest.input_shape))
    lit = generator.random(shape) < density
    bright = generator.uniform(manifest.input_min, manifest.input_max, shape)
    bright[-1] = manifest.input_max
    return np.where(lit, bright, manifest.input_min).astype(np.float32)
