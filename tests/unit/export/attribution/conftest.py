"""The bundled model, as attribution takes it."""

import numpy as np
import pytest

from export.attribution.network import Network
from export.bundle import Bundle
from export.runtimes import Runner, open_runner


@pytest.fixture(scope="session")
def onnx(bundle: Bundle) -> Runner:
    """The bundled model in the runtime that serves."""
    return open_runner(bundle, "onnx", "cpu")


@pytest.fixture(scope="session")
def bundle_network(bundle: Bundle, weights: dict[str, np.ndarray]) -> Network:
    """The bundled model's parameters."""
    return Network.of(bundle.manifest.stages, weights, "float32")
