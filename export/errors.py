"""Errors of bundles, and of the machines that run them."""

HOW_TO_GET_TORCH = "install the train extra: make train, or pip install --editable '.[train]'"


class ExportError(Exception):
    """Base of the errors of this package; their text is for the user."""


class BundleError(ExportError):
    """A bundle that is missing, incomplete or differs from its manifest."""


class RuntimeUnavailableError(ExportError):
    """A runtime or a device that this machine or installation lacks."""


class ParityError(ExportError):
    """A runtime that does not compute the function of the weights."""


class ImagesError(ExportError):
    """Images to compare on that do not fit the model."""
