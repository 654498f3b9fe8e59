"""The weights of a bundle, from safetensors: no pickle."""

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from export.architecture import parameter_shapes
from export.bundle.manifest import WEIGHTS_FILE
from export.bundle.reading import Bundle
from export.errors import BundleError


def read_weights(bundle: Bundle) -> dict[str, np.ndarray]:
    """Return the parameters by name ("linear1.weight": [out, in], "linear1.bias": [out], …).

    Raises:
        BundleError: the file is damaged, or has not the parameters of the stages.
    """
    path, data = bundle.path / WEIGHTS_FILE, bundle.read(WEIGHTS_FILE)
    try:
        weights = load(data)
    except SafetensorError as error:
        raise BundleError(f"{path}: no safetensors: {error}") from error
    found = {name: (array.shape, str(array.dtype)) for name, array in weights.items()}
    expected = {
        name: (shape, "float32") for name, shape in parameter_shapes(bundle.manifest.stages).items()
    }
    if found != expected:
        raise BundleError(f"{path}: expected the parameters {expected}, got {found}")
    return weights
