"""Keep what an epoch did: a line of the table, a line of `history.jsonl`, a point of the plot."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from training.fit import Epoch

HEADINGS = f"{'epoch':>5}  {'loss':>7}  {'accuracy':>8}  {'rate':>8}  {'seconds':>7}  observation"


def observation(before: Sequence[Epoch], epoch: Epoch) -> str:
    """Say in words what an epoch did, from its figures and those before it."""
    if not before:
        level = "high" if epoch.loss > 0.5 else "moderate" if epoch.loss > 0.1 else "low"
        return f"starts learning, loss {level}"
    best = max(earlier.accuracy for earlier in before)
    gain = epoch.accuracy - best
    falling = "loss falls" if epoch.loss < before[-1].loss else "loss rises"
    if gain >= 0.01:
        return f"improves fast, {falling}"
    if gain >= 0.001:
        return f"improves, {falling}"
    if gain > 0:
        return f"improves slightly, {falling}"
    if gain >= -0.001:
        return f"converges, {falling}"
    return f"below its best of {best:.2%}, {falling}"


def table_row(epoch: Epoch, observed: str) -> str:
    """Return the line of the epoch table, under `HEADINGS`."""
    return (
        f"{epoch.epoch:>5}  {epoch.loss:>7.4f}  {epoch.accuracy:>8.2%}  "
        f"{epoch.learning_rate:>8.2g}  {epoch.seconds:>7.1f}  {observed}"
    )


def history_lines(epochs: Sequence[Epoch]) -> bytes:
    """Return `history.jsonl`: an object for each epoch."""
    lines = [
        json.dumps({**asdict(epoch), "observation": observation(epochs[:index], epoch)})
        for index, epoch in enumerate(epochs)
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def history_plot(epochs: Sequence[Epoch], title: str) -> bytes:
    """Return `history.png`: loss, error rate and learning rate by epoch."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    figure.suptitle(title)
    numbers = [epoch.epoch for epoch in epochs]
    marker = "o" if len(epochs) == 1 else None  # a line of one point would not be seen
    for axes, name, values, scale, color in zip(
        figure.subplots(1, 3),
        ("loss (augmented training images)", "held-out error, %", "learning rate"),
        (
            [epoch.loss for epoch in epochs],
            [100 * (1 - epoch.accuracy) for epoch in epochs],
            [epoch.learning_rate for epoch in epochs],
        ),
        ("log", "log", "linear"),
        ("tab:blue", "tab:red", "tab:green"),
        strict=True,
    ):
        axes.plot(numbers, values, color=color, marker=marker)
        axes.set(xlabel="epoch", title=name)
        if min(values) > 0:  # a perfect epoch has no place on a logarithmic axis
            axes.set_yscale(scale)
        if axes.get_yscale() == "log":  # plain numbers at 1, 2, 5, 10, …
            axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
