"""What can be wrong with a bundle or the machine that runs it."""

HOW_TO_GET_TORCH = "install the train extra: make train, or pip install --editable '.[train]'"


class ExportError(Exception):
    """Base of the errors of this package; its text is meant for the user."""


class BundleError(ExportError):
    """A bundle that is missing, incomplete or not what its manifest says."""


class RuntimeUnavailableError(ExportError):
    """A runtime or a device that this machine or installation lacks."""


class ParityError(ExportError):
    """A runtime that does not compute the function of the weights."""


class ImagesError(ExportError):
    """Images to compare on that are no images of the model."""
