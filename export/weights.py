"""The weights of a bundle, from safetensors: no pickle."""

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from export.bundle import Bundle
from export.errors import BundleError
from export.manifest import WEIGHTS_FILE


def read_weights(bundle: Bundle) -> dict[str, np.ndarray]:
    """Return the parameters by name ("linear1.weight": [out, in], "linear1.bias": [out], …).

    Raises:
        BundleError: the file is damaged.
    """
    data = bundle.read(WEIGHTS_FILE)
    try:
        return load(data)
    except SafetensorError as error:
        raise BundleError(f"{bundle.path / WEIGHTS_FILE}: no safetensors: {error}") from error
