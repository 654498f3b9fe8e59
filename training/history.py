"""The record of an epoch: its figures, an observation in words, a line of `history.jsonl`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch.

    Losses are mean cross-entropies in nats, accuracies shares in 0..1. The
    training figures are of the distorted images and the weights at each step;
    all others are of the averaged weights, which are published.
    """

    epoch: int  # from 1
    train_loss: float
    train_accuracy: float
    held_out_loss: float
    held_out_accuracy: float
    learning_rate: float  # at the last step
    augmentation: float  # strength of the distortions after the last step
    gradient_norm: float  # L2 norm over all parameters, mean over the steps
    dead_units: int  # hidden units that are 0 for every held-out image
    weight_norms: dict[str, float]  # L2 norm of each weight matrix
    seconds: float


def observation(before: Sequence[Epoch], epoch: Epoch) -> str:
    """Describe an epoch in words, from its figures and those before it."""
    loss = epoch.train_loss
    if not before:
        level = "high" if loss > 0.5 else "moderate" if loss > 0.1 else "low"
        return f"starts learning, loss {level}"
    died = epoch.dead_units - before[-1].dead_units
    falling = "loss falls" if loss < before[-1].train_loss else "loss rises"
    if died > 0:
        falling += f", {died} unit{'s' if died > 1 else ''} died"
    best = max(earlier.held_out_accuracy for earlier in before)
    gain = epoch.held_out_accuracy - best
    if gain >= 0.01:
        return f"improves fast, {falling}"
    if gain >= 0.001:
        return f"improves, {falling}"
    if gain > 0:
        return f"improves slightly, {falling}"
    if gain >= -0.001:
        return f"converges, {falling}"
    return f"below its best of {best:.2%}, {falling}"


def seconds_to(epochs: Sequence[Epoch], accuracy: float) -> float | None:
    """Return the seconds of training until the held-out accuracy was first reached, or None."""
    seconds = 0.0
    for epoch in epochs:
        seconds += epoch.seconds
        if epoch.held_out_accuracy >= accuracy:
            return seconds
    return None


def history_lines(epochs: Sequence[Epoch]) -> bytes:
    """Return `history.jsonl`: an object for each epoch."""
    lines = [
        json.dumps({**asdict(epoch), "observation": observation(epochs[:index], epoch)})
        for index, epoch in enumerate(epochs)
    ]
    return "".join(f"{line}\n" for line in lines).encode()
