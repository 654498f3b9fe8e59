"""The pictures of a bundle, as PNG: history and mistakes, evaluation, weights."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, PercentFormatter
from PIL import Image

from training.data import IMAGE_SIDE, Split
from training.evaluate import Evaluation
from training.history import Epoch

DOTS_PER_INCH = 110
TRAIN, HELD_OUT, OTHER = "tab:blue", "tab:red", "tab:green"
SHOWN_MISTAKES = 24
SHOWN_UNITS, UNIT_COLUMNS = 256, 16  # of the first layer


def history_picture(
    epochs: Sequence[Epoch],
    evaluation: Evaluation,
    test: Split,
    labels: Sequence[str],
    title: str,
) -> bytes:
    """Draw the curves by epoch and, of the test images, confusion matrix and worst mistakes."""
    figure = Figure(figsize=(12, 8.6), layout="constrained")
    figure.suptitle(title)
    curves, rest = cast("np.ndarray", figure.subfigures(2, 1, height_ratios=(1, 1.5)))
    _draw_curves(curves, epochs)
    confusion, mistakes = cast("np.ndarray", rest.subfigures(1, 2))
    _draw_confusion(confusion.subplots(), evaluation.confusion.numpy(), labels)
    _draw_mistakes(mistakes, evaluation, test, labels)
    return _png(figure)


def _draw_curves(figure: SubFigure, epochs: Sequence[Epoch]) -> None:
    loss, error, rate = figure.subplots(1, 3)
    numbers = [epoch.epoch for epoch in epochs]
    _draw_lines(
        loss,
        "loss, nats",
        numbers,
        {
            "training images, distorted": ([epoch.train_loss for epoch in epochs], TRAIN),
            "held-out images": ([epoch.held_out_loss for epoch in epochs], HELD_OUT),
        },
    )
    _draw_lines(
        error,
        "error, %",
        numbers,
        {
            "training images, distorted": (
                [100 * (1 - epoch.train_accuracy) for epoch in epochs],
                TRAIN,
            ),
            "held-out images": (
                [100 * (1 - epoch.held_out_accuracy) for epoch in epochs],
                HELD_OUT,
            ),
        },
    )
    # Shares of the largest value, for two measures on one axis.
    _draw_lines(
        rate,
        "share of the largest",
        numbers,
        {
            "learning rate": (_shares([epoch.learning_rate for epoch in epochs]), OTHER),
            "augmentation": (_shares([epoch.augmentation for epoch in epochs]), "tab:orange"),
        },
        scale="linear",
    )


def _shares(values: Sequence[float]) -> list[float]:
    return [value / (max(values) or 1.0) for value in values]


def _draw_lines(
    axes: Axes,
    title: str,
    numbers: Sequence[int],
    lines: Mapping[str, tuple[Sequence[float], str]],
    scale: str = "log",
) -> None:
    marker = "o" if len(numbers) == 1 else None  # a line of one point is invisible
    for name, (values, color) in lines.items():
        axes.plot(numbers, values, color=color, marker=marker, label=name)
    axes.set(xlabel="epoch", title=title)
    # An error of 0 has no place on a logarithmic axis.
    if scale == "log" and all(min(values) > 0 for values, _ in lines.values()):
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend(frameon=False)
    _style(axes)


def _style(axes: Axes) -> None:
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_confusion(axes: Axes, confusion: np.ndarray, labels: Sequence[str]) -> None:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)  # the many correct ones would hide the mistakes
    axes.imshow(wrong, cmap="Reds", vmin=0, vmax=max(1, wrong.max()))
    for row, column in np.ndindex(*confusion.shape):
        if count := confusion[row, column]:
            color = "white" if wrong[row, column] > 0.6 * wrong.max() > 0 else "black"
            weight = "bold" if row == column else "normal"
            axes.text(
                column,
                row,
                f"{count}",
                ha="center",
                va="center",
                size=8,
                color=color,
                weight=weight,
            )
    ticks = range(len(labels))
    long = max(map(len, labels)) > 2
    axes.set_xticks(ticks, labels, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="predicted", ylabel="label", title="confusion matrix, test images")
    axes.spines[:].set_visible(False)


def _draw_mistakes(
    figure: SubFigure, evaluation: Evaluation, test: Split, labels: Sequence[str]
) -> None:
    total = len(evaluation.mistakes)
    figure.suptitle(
        f"the most confident of {total} mistakes: label → prediction, confidence", size=12
    )
    mistakes = iter(evaluation.mistakes)
    without_ticks: dict[str, list[float]] = {"xticks": [], "yticks": []}
    for axes in figure.subplots(4, SHOWN_MISTAKES // 4, subplot_kw=without_ticks).flat:
        axes.axis("off")
        if mistake := next(mistakes, None):
            axes.imshow(test.images[mistake.index].numpy(), cmap="gray", vmin=0, vmax=255)
            names = f"{labels[mistake.label]} → {labels[mistake.prediction]}"
            axes.set_title(f"{names}  {mistake.confidence:.0%}", size=8, pad=2)


def evaluation_picture(evaluation: Evaluation, title: str) -> bytes:
    """Draw the reliability plot and the accuracy by shift, rotation and noise."""
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    figure.suptitle(title)
    reliability, *others = figure.subplots(1, 1 + len(evaluation.robustness))
    _draw_reliability(reliability, evaluation)
    for axes, one in zip(others, evaluation.robustness, strict=True):
        axes.plot(one.levels, one.accuracies, color=HELD_OUT, marker="o")
        axes.set(xlabel=one.unit, title=f"accuracy, {one.condition}", ylim=(0, 1.03))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _style(axes)
    return _png(figure)


def _draw_reliability(axes: Axes, evaluation: Evaluation) -> None:
    total = sum(one.images for one in evaluation.bins)
    axes.plot((0, 1), (0, 1), color="gray", linestyle=":")
    axes.scatter(
        [one.confidence for one in evaluation.bins],
        [one.accuracy for one in evaluation.bins],
        # Areas grow with the share of the images, and the smallest can be seen.
        s=[15 + 250 * one.images / total for one in evaluation.bins],
        color=TRAIN,
        alpha=0.7,
    )
    axes.set(
        xlabel="confidence",
        title=f"accuracy by confidence (error {evaluation.calibration_error:.2%})",
        xlim=(0, 1.05),
        ylim=(0, 1.05),
    )
    _style(axes)


def weights_picture(weight: torch.Tensor, outgoing: torch.Tensor, labels: Sequence[str]) -> bytes:
    """Draw the weights of each unit, [units, pixels], as an image.

    `outgoing` [next units, units] are the weights of the layer that follows. If that
    is the last, the units stand in the order of the class that each raises most.
    """
    last = len(outgoing) == len(labels)
    classes = outgoing.argmax(dim=0)
    order = classes.argsort(stable=True) if last else torch.arange(len(weight))
    order = order[:SHOWN_UNITS]
    columns = min(UNIT_COLUMNS, len(order))
    rows, tile = -(-len(order) // columns), IMAGE_SIDE + 2
    mosaic = np.full((rows * tile, columns * tile), np.nan)
    figure = Figure(figsize=(12, 0.5 + 12 / columns * rows), layout="constrained")
    axes = figure.subplots()
    for position, unit in enumerate(order.tolist()):
        top, left = (tile * index + 1 for index in divmod(position, columns))
        image = weight[unit].view(IMAGE_SIDE, IMAGE_SIDE)
        limit = float(image.abs().max()) or 1.0
        mosaic[top : top + IMAGE_SIDE, left : left + IMAGE_SIDE] = (image / limit).numpy()
        if last:
            axes.text(left, top, labels[int(classes[unit])], size=7, va="top")
    axes.imshow(mosaic, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.axis("off")
    shown = f"{len(order)} of {len(weight)}" if len(order) < len(weight) else f"{len(weight)}"
    raised = ", each with the class that it raises most" if last else ""
    figure.suptitle(f"first layer, {shown} units{raised}: red ink excites, blue inhibits", size=12)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    small = io.BytesIO()
    figure.set_dpi(DOTS_PER_INCH)
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no annotations
    canvas.draw()  # once: savefig would draw all of it before, too, for the layout
    # 256 colours are enough, and a third of the bytes.
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    drawn.quantize(256).save(small, format="png", optimize=True)
    return small.getvalue()
