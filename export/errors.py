"""Errors of bundles, and of the machines that run them."""

HOW_TO_GET_TORCH = "install the train extra: make train, or pip install --editable '.[train]'"

_TRAIN_PACKAGES = ("onnx", "safetensors", "torch")  # of a runtime: those of the train extra


def how_to_get(module: str) -> str:
    """Return how to install the package of a module that a runtime needs."""
    package = module.partition(".")[0]
    return HOW_TO_GET_TORCH if package in _TRAIN_PACKAGES else f"install it: pip install {package}"


class ExportError(Exception):
    """Base of the errors of this package; their text is for the user."""


class BundleError(ExportError):
    """A bundle that is missing, incomplete or differs from its manifest."""


class RuntimeUnavailableError(ExportError):
    """A runtime or a device that this machine or installation lacks."""


class InterventionsUnavailableError(ExportError):
    """A bundle that was exported before interventions."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the bundle was exported without {what}, which interventions need; publish a version "
            "of the model that has it"
        )


class ParityError(ExportError):
    """A runtime that does not compute the function of the weights."""


class ImagesError(ExportError):
    """Images to compare on that do not fit the model."""
