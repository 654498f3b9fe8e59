"""Muon against its definition in float64, and against torch's own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.trainings import fitted
from training.data import load
from training.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonalize


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Return what Jordan et al. define, on the whole matrix in float64."""
    a, b, c = COEFFICIENTS
    x = matrix.astype(np.float64)
    if len(x) > x.shape[1]:
        return newton_schulz(x.T).T
    x = x / max(float(np.linalg.norm(x)), 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def random_matrix(rows: int, columns: int, seed: int, smallest: float) -> torch.Tensor:
    """Return a matrix whose columns differ in size by as much as 1 to `smallest`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.logspace(
        0, np.log10(smallest), columns
    )


@given(
    st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**31), st.sampled_from([1, 1e-2, 1e-4])
)
def test_orthogonalize_is_newton_schulz(
    rows: int, columns: int, seed: int, smallest: float
) -> None:
    matrix = random_matrix(rows, columns, seed, smallest)
    found = orthogonalize(matrix)
    # Five iterations amplify what float32 rounds away of a tiny singular value. bfloat16 alone
    # rounds by 4e-3.
    np.testing.assert_allclose(found, newton_schulz(matrix.numpy()), rtol=0, atol=2e-3)


def test_orthogonalize_brings_singular_values_near_1() -> None:
    found = np.linalg.svd(orthogonalize(random_matrix(128, 784, 0, 0.1)).numpy())[1]
    assert found.min() > 0.6
    assert found.max() < 1.3


def test_a_zero_gradient_changes_nothing() -> None:
    weights = torch.nn.Parameter(torch.ones(3, 5))
    weights.grad = torch.zeros(3, 5)
    optimizer = Muon([weights], momentum=0.9, weight_decay=0.0)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert torch.equal(weights.detach(), torch.ones(3, 5))


@pytest.mark.parametrize("shape", [(10, 128), (128, 784), (64, 16)])
def test_steps_match_torchs_muon(shape: tuple[int, int]) -> None:
    """Apart from bfloat16, whose relative error is up to 0.4% in each product."""
    ours, theirs = (torch.nn.Parameter(random_matrix(*shape, 1, 1)) for _ in range(2))
    started = ours.detach().clone()
    settings: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.3}
    own, reference = Muon([ours], **settings), torch.optim.Muon([theirs], **settings)
    for step in range(5):
        for optimizer, weights in ((own, ours), (reference, theirs)):
            optimizer.param_groups[0]["lr"] = 0.05 / (1 + step)
            weights.grad = random_matrix(*shape, 100 + step, 0.1)
            optimizer.step()
    change = (theirs - started).norm()
    assert (ours - theirs).norm() < 0.02 * change
    state = own.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(state, reference.state_dict()["state"][0]["momentum_buffer"])


def test_training_uses_no_half_precision() -> None:
    """Many processors emulate bfloat16 and float16, at 1/40 of the speed of float32."""
    seen: set[torch.dtype] = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(
            self,
            function: Callable[..., object],
            types: object,
            args: tuple[object, ...] = (),
            kwargs: Mapping[str, object] | None = None,
        ) -> object:
            found = function(*args, **(kwargs or {}))
            seen.update(one.dtype for one in tree_leaves(found) if isinstance(one, torch.Tensor))
            return found

    with Record():  # type: ignore[no-untyped-call] # torch's constructor has no annotations
        fitted(load("digits", Path(), None), epochs=1)
    assert torch.float32 in seen
    assert not seen & {torch.bfloat16, torch.float16}
