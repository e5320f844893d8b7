"""Which images and classes a report shows: pure functions of predictions."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BINS = 15
"""The number of bins of confidence (Guo et al. 2017, section 4.2)."""

SURE = 0.5
"""The margin above which the network is sure of an image, which is then labeled after all others."""

Z = 1.96
"""The quantile of the normal distribution of a two-sided interval of 95 %."""


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same confidence.

    Attributes:
        low: Lower bound of the confidence.
        high: Upper bound of the confidence, inclusive.
        images: Number of images; 0 leaves the two means NaN.
        confidence: Mean confidence.
        accuracy: Share of right predictions.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> list[Bin]:
    """Sort predictions into bins of equal width by confidence, each including its upper bound.

    Args:
        confidence: Probability of the predicted class, `[n]`, in [0, 1].
        correct: Whether the prediction is right, `bool [n]`.
        bins: Number of bins M.
    """
    confidence = confidence.double()
    places = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    images = torch.bincount(places, minlength=bins)
    means = [torch.bincount(places, value.double(), minlength=bins) / images for value in (confidence, correct)]
    return [Bin(m / bins, (m + 1) / bins, int(images[m]), float(means[0][m]), float(means[1][m])) for m in range(bins)]


def calibration_error(bins: list[Bin]) -> float:
    """Compute the expected calibration error, `sum_m n_m / n |accuracy_m - confidence_m|`; NaN without images.

    Naeini et al. 2015; Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    total = sum(each.images for each in bins)
    gaps = sum(each.images * abs(each.accuracy - each.confidence) for each in bins if each.images)
    return gaps / total if total else float("nan")


def label_next(predicted: Tensor, margin: Tensor, class_counts: Tensor, number: int) -> Tensor:
    """Choose unlabeled images to label: those of the smallest margin, balanced over the predicted classes.

    Margin sampling (Scheffer et al. 2001; Roth and Small 2006) asks for the images whose two most likely classes are
    nearly equally likely. On a long tail it would mostly ask for frequent classes, so that the classes take turns, as
    Bengar et al. 2022 (arXiv 2110.04543) balance what is asked for over the predicted classes: in each round, every
    predicted class gives the image of its smallest margin that is left, classes with the fewest labels first. So the
    beginning of the list, of any length, is balanced, and a rest of a round goes to the rarest classes. A label of an
    image that the network is sure of (`SURE`, our choice) helps little, so that a class without others waits.

    Args:
        predicted: Predicted class of each of n images, `int64 [n]`.
        margin: Difference of the two largest probabilities of each image, `[n]`.
        class_counts: Number of labeled images of each class, `[K]`.
        number: The number of images to choose.

    Returns:
        Positions of the chosen images, `int64 [min(n, number)]`, the most wanted first.
    """
    by_class = np.lexsort((margin.numpy(), predicted.numpy()))
    classes = predicted.numpy()[by_class]
    starts = np.searchsorted(classes, classes)  # where the class of each image begins
    turns = np.empty(len(classes), dtype=np.int64)
    turns[by_class] = np.arange(len(classes)) - starts
    labels = class_counts.numpy()[predicted.numpy()]
    order = np.lexsort((predicted.numpy(), labels, turns, margin.numpy() > SURE))
    return torch.from_numpy(order[:number].copy())


@dataclass(frozen=True)
class Confusion:
    """Images of one class that are predicted as another.

    Attributes:
        target: The true class.
        predicted: The predicted class.
        images: The number of such images.
        support: The number of evaluated images of the true class.
    """

    target: int
    predicted: int
    images: int
    support: int


def worst_confusions(target: Tensor, predicted: Tensor, num_classes: int, number: int) -> list[Confusion]:
    """Find the pairs of classes that are confused most, as a share of the true class.

    Of a class with two images, one wrong one is half of the class, and says little. So pairs are sorted by the lower
    bound of Wilson's interval for the share (Wilson 1927), which grows with the share and with the number of images.

    Args:
        target: The true classes, `int64 [n]`.
        predicted: The predicted classes, `int64 [n]`.
        num_classes: The number of classes K.
        number: The largest number of pairs.
    """
    support = torch.bincount(target, minlength=num_classes)
    wrong = target != predicted
    pairs, images = torch.unique(target[wrong] * num_classes + predicted[wrong], return_counts=True)
    if not len(pairs):
        return []
    of = support[pairs // num_classes]
    order = wilson_lower(images, of).argsort(descending=True, stable=True)[:number]
    return [
        Confusion(int(pairs[i]) // num_classes, int(pairs[i]) % num_classes, int(images[i]), int(of[i])) for i in order
    ]


def wilson_lower(part: Tensor, whole: Tensor) -> Tensor:
    """Compute the lower bound of Wilson's 95 % interval of `part / whole`, all `[n]`, with `whole` above 0."""
    part, whole = part.double(), whole.double()
    share, square = part / whole, Z * Z
    spread = Z * (share * (1 - share) / whole + square / (4 * whole * whole)).sqrt()
    return (share + square / (2 * whole) - spread) / (1 + square / whole)
