"""Muon in float32: the optimizer of the weight matrices.

`torch.optim.Muon` orthogonalizes in bfloat16 whatever the weights are, which a processor
without bfloat16 arithmetic emulates: 45 ms instead of 1 ms for a matrix [128, 784].
"""

from collections.abc import Iterable

import torch

# Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks": the odd polynomial
# ax + bx³ + cx⁵ that, applied 5 times, brings every singular value from 0.01 to 1 near 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MIN_NORM = 1e-7  # a matrix of zeros stays zero


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized, with decoupled weight decay.

    Computes what `torch.optim.Muon` does, but for the precision: its momentum, its
    decay, and its factor of the learning rate, sqrt(max(1, rows / columns)).
    """

    def __init__(
        self, matrices: Iterable[torch.Tensor], *, momentum: float, weight_decay: float
    ) -> None:
        """Optimize matrices [rows, columns]; set the learning rate, `lr`, before each step."""
        super().__init__(matrices, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override] # no closure: the loss is not computed again
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                average = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                update = orthogonalize(matrix.grad.lerp(average, momentum))
                rows, columns = matrix.shape
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(update, alpha=-rate * max(1, rows / columns) ** 0.5)


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix [rows, columns] with its singular values all brought near 1.

    Newton-Schulz iterations on the Gram matrix G = XXᵀ of the shorter side: X becomes
    (aI + bG + cG²)X, so G becomes PGP with P = aI + bG + cG², and the product of all P is
    applied to X once. The long side takes part in 2 matrix products instead of 10.
    """
    rows, columns = matrix.shape
    if rows > columns:
        return orthogonalize(matrix.T).T
    a, b, c = COEFFICIENTS
    scaled = matrix / matrix.norm().clamp(min=MIN_NORM)
    gram = scaled @ scaled.T
    product = torch.eye(rows, dtype=matrix.dtype, device=matrix.device)
    for _ in range(ITERATIONS):
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        product = polynomial @ product
        gram = polynomial @ gram @ polynomial
    return product @ scaled
