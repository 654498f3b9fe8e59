"""Evaluation of a trained network: accuracy, calibration, robustness, mistakes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import nn
from torch.nn import functional

from training.augment import affine_maps, warp
from training.data import Split
from training.metrics import accuracy

CALIBRATION_BINS = 15
# The conditions of robustness and their levels; an image is never cut at level 0.
SHIFTS_PIXELS = (0, 1, 2, 3, 4, 6)
ROTATIONS_DEGREES = (0, 5, 10, 15, 20, 30, 45)
NOISES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)  # standard deviation; a pixel is 0..1


@dataclass(frozen=True)
class Bin:
    """Images whose confidence, the largest probability, lies in one interval."""

    images: int
    confidence: float  # their mean confidence
    accuracy: float  # share of them whose prediction is right


@dataclass(frozen=True)
class Mistake:
    """An image whose largest logit is not its label's."""

    index: int
    label: int
    prediction: int
    confidence: float  # the probability of the prediction


@dataclass(frozen=True)
class Robustness:
    """The accuracy under a condition, by level."""

    condition: str
    unit: str
    levels: tuple[float, ...]
    accuracies: tuple[float, ...]

    def first_level_below(self, accuracy: float) -> float | None:
        """Return the smallest level with an accuracy below this one, or None."""
        pairs = zip(self.levels, self.accuracies, strict=True)
        return next((level for level, reached in pairs if reached < accuracy), None)


@dataclass(frozen=True)
class Score:
    """The figures by which networks are compared."""

    accuracy: float
    loss: float  # mean cross-entropy, nats


@dataclass(frozen=True)
class Evaluation(Score):
    """All figures of a network on a split of images."""

    calibration_error: float
    bins: tuple[Bin, ...]  # those that have images
    confusion: torch.Tensor  # int64 [C, C]: images of the row's class taken for the column's
    mistakes: tuple[Mistake, ...]  # the most confident first
    robustness: tuple[Robustness, ...]
    inverted_accuracy: float  # dark ink on light ground


@torch.no_grad()
def score(network: nn.Module, split: Split) -> Score:
    """Return accuracy and loss alone: `evaluate` runs the network on changed images, too."""
    network.eval()
    return _score(network(split.pixels()), split.labels)


def _score(logits: torch.Tensor, labels: torch.Tensor) -> Score:
    loss = functional.cross_entropy(logits.double(), labels).item()
    return Score(accuracy(logits, labels), loss)


@torch.no_grad()
def evaluate(network: nn.Module, split: Split) -> Evaluation:
    """Return the figures of a network that takes pixels 0..1, on images of the CPU."""
    network.eval()
    pixels = split.pixels()
    logits, classes = network(pixels), network(pixels[:1]).shape[1]
    probabilities = logits.double().softmax(dim=1)
    confidences, predictions = probabilities.max(dim=1)
    bins = calibration_bins(confidences, predictions == split.labels)
    pairs = split.labels * classes + predictions
    plain = _score(logits, split.labels)

    def accuracy_on(images: torch.Tensor) -> float:
        return accuracy(network(images), split.labels)

    return Evaluation(
        accuracy=plain.accuracy,
        loss=plain.loss,
        calibration_error=calibration_error(bins),
        bins=bins,
        confusion=torch.bincount(pairs, minlength=classes**2).view(classes, classes),
        mistakes=_mistakes(split.labels, predictions, confidences),
        robustness=_robustness(pixels, accuracy_on),
        inverted_accuracy=accuracy_on(1 - pixels),
    )


def calibration_bins(confidences: torch.Tensor, right: torch.Tensor) -> tuple[Bin, ...]:
    """Sort images, [N] each, into equal intervals (low, high] of confidence."""
    numbers = (confidences * CALIBRATION_BINS).ceil().clamp(min=1) - 1
    bins = []
    for number in range(CALIBRATION_BINS):
        inside = numbers == number
        if count := int(inside.sum()):
            confidence, share = confidences[inside].mean(), right[inside].double().mean()
            bins.append(Bin(count, confidence.item(), share.item()))
    return tuple(bins)


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy.

    Weighted by images (Guo et al., On Calibration of Modern Neural Networks, 2017, eq. 3).
    """
    total = sum(one.images for one in bins)
    return sum(one.images * abs(one.accuracy - one.confidence) for one in bins) / total


def _mistakes(
    labels: torch.Tensor, predictions: torch.Tensor, confidences: torch.Tensor
) -> tuple[Mistake, ...]:
    wrong = (predictions != labels).nonzero().flatten()
    ordered = wrong[confidences[wrong].argsort(descending=True, stable=True)]
    return tuple(
        Mistake(index, int(labels[index]), int(predictions[index]), float(confidences[index]))
        for index in ordered.tolist()
    )


def _robustness(
    pixels: torch.Tensor, accuracy_on: Callable[[torch.Tensor], float]
) -> tuple[Robustness, ...]:
    def both_ways(change: Callable[[float], torch.Tensor], level: float) -> float:
        return fmean(accuracy_on(change(way * level)) for way in (1, -1))

    def shifted(level: float) -> float:
        across = both_ways(lambda by: shift(pixels, by, 0), level)
        return fmean([across, both_ways(lambda by: shift(pixels, 0, by), level)])

    def rotated(level: float) -> float:
        return both_ways(lambda degrees: rotate(pixels, degrees), level)

    def noisy(level: float) -> float:
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
        return accuracy_on((pixels + noise * level).clamp(0, 1))

    def figures(
        condition: str, unit: str, levels: tuple[float, ...], at: Callable[[float], float]
    ) -> Robustness:
        return Robustness(condition, unit, levels, tuple(at(level) for level in levels))

    return (
        figures("shifted", "pixels", SHIFTS_PIXELS, shifted),
        figures("rotated", "degrees", ROTATIONS_DEGREES, rotated),
        figures("noisy", "standard deviation of the noise", NOISES, noisy),
    )


def shift(images: torch.Tensor, right: float, down: float) -> torch.Tensor:
    """Return images [N, H, W] moved by so many pixels; new pixels are 0."""
    _, height, width = images.shape
    return _transform(images, shift_x=-right * 2 / width, shift_y=-down * 2 / height)


def rotate(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """Return images [N, H, W] turned counter-clockwise about their centre; new pixels are 0."""
    return _transform(images, angle=math.radians(degrees))


def _transform(
    images: torch.Tensor, angle: float = 0.0, shift_x: float = 0.0, shift_y: float = 0.0
) -> torch.Tensor:
    maps = affine_maps(torch.tensor([[angle, 0.0, 0.0, 0.0, shift_x, shift_y]]))
    return warp(images, maps.expand(len(images), -1, -1))
