"""Memory: checked before a training starts; if it runs out later, that is a clear error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from training.config import SIDE, Recipe, parameter_count
from training.data import Data
from training.errors import ConfigurationError

FLOAT32_BYTES = 4
# Copies of the parameters at a time: weights, average, gradients and momentum, and three of
# them once more when the checkpoint is written.
COPIES = 7
CGROUP_LIMITS = (  # version 2, version 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def check_memory(recipe: Recipe, data: Data, available: int | None = None) -> None:
    """Raise ConfigurationError if a training needs more memory than the machine has.

    The need is a lower bound: a training that is refused could not have run.
    """
    available = available_bytes() if available is None else available
    # Each layer's value of every held-out image, before and after ReLU.
    layers = 2 * len(data.held_out) * sum(recipe.hidden)
    pixels = SIDE * SIDE * len(data.train)
    needed = FLOAT32_BYTES * (COPIES * parameter_count(recipe.hidden) + layers + pixels)
    if needed > available:
        raise ConfigurationError(
            f"--hidden {','.join(map(str, recipe.hidden))}: needs at least {_gibibytes(needed)} of "
            f"memory, this machine offers {_gibibytes(available)}; give fewer units"
        )


def available_bytes() -> int:
    """Return the memory of the machine, or less if a cgroup limits it."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    texts = [path.read_text(encoding="ascii") for path in CGROUP_LIMITS if path.is_file()]
    return min([physical, *(int(text) for text in texts if text.strip().isdecimal())])


@contextmanager
def out_of_memory_named(recipe: Recipe) -> Iterator[None]:
    """Turn an out-of-memory error of the block into a ConfigurationError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        # Torch's texts where it has no type: of a CPU, and of a GPU that is full from the start.
        texts = ("can't allocate memory", "CUDA error: out of memory")
        if not is_memory and not any(text in str(error) for text in texts):
            raise
        whose = " of the GPU" if "CUDA" in str(error) else ""
        raise ConfigurationError(
            f"not enough memory{whose} for --hidden {','.join(map(str, recipe.hidden))} and "
            f"--batch-images {recipe.batch_images}: give a smaller one of them, or end other "
            "programs, and continue with --resume"
        ) from error


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
