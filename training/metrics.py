"""Metrics of a classification."""

import torch


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of the rows [N, C], in 0..1, whose largest logit is the label's."""
    return (logits.argmax(dim=1) == labels).to(torch.float64).mean().item()
