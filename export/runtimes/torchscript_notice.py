"""PyTorch's notice that TorchScript is deprecated, filtered here and nowhere else."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torchscript_notice_filtered() -> Iterator[None]:
    """Silence exactly the deprecation notice of torch.jit; any other warning passes.

    The project exports TorchScript because its users ask for it; each call
    repeats a notice that they can do nothing about.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            message=r"`torch\.jit\.(script|save|load)` is deprecated\. Please switch to ",
            category=FutureWarning,
        )
        yield
