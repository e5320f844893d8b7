"""The contrast of features with class centers of BaCon (Feng et al., AAAI 2024, arXiv 2403.12986)."""

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE, SPREAD, NEGATIVES, TOP = 0.1, 0.0005, 64, 3
"""The authors' temperature, its largest decrease, the weight of the mean negative, and the classes that rule it out."""


def anchors_and_negatives(probs: Tensor, label: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Tell (1 or 0, both `float32 [B, K]`) of which classes rows are anchors, and of which they are negatives.

    Args:
        probs: Predictions `[B, K]`.
        label: Given or most probable classes, `int64 [B]`.
        known: Whether the class is given, `bool [B]`.
    """
    classes = probs.shape[1]
    anchors = functional.one_hot(label, classes).float()
    top = probs.topk(min(TOP, classes - 1), dim=1).indices
    probable = functional.one_hot(top, classes).sum(dim=1).float()
    return anchors, 1 - torch.where(known[:, None], anchors, probable)


def class_centers(rows: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Compute the mean row `[K, D]` of each label; zeros for one that has none.

    Args:
        rows: Projections `[N, D]`; zeros for an image that has none.
        labels: Labels `[N]`, -1 for none.
        num_classes: Number of classes K.
    """
    there = rows.any(dim=1) & (labels >= 0)
    label = torch.where(there, labels, num_classes).long()
    sums = rows.new_zeros(num_classes + 1, rows.shape[1]).index_add_(0, label, rows)
    counts = rows.new_zeros(num_classes + 1).index_add_(0, label, torch.ones_like(rows[:, 0]))
    return (sums / counts.clamp(min=1)[:, None])[:-1]


def class_temperatures(frequencies: Tensor, share: float) -> Tensor:
    """Compute the temperature of each class, `[K]`: `0.1 - 0.0005 (1 - share)^2 sqrt(f / max f)`.

    Args:
        frequencies: The numbers f of images with each label, `[K]`.
        share: Share of the training that is done, in [0, 1].
    """
    return TEMPERATURE - SPREAD * (1 - share) ** 2 * (frequencies / frequencies.max().clamp(min=1)).sqrt()


def center_contrast(
    rows: Tensor, anchors: Tensor, negatives: Tensor, selected: Tensor, centers: Tensor, temperatures: Tensor
) -> Tensor:
    """Compute the contrast `[]` of `BaCon`; 0 if nothing is selected.

    Args:
        rows: Projections `float32 [B, D]`.
        anchors: Of which class each is an anchor, `[B, K]`, one 1 in each row.
        negatives: Of which classes each is a negative, `[B, K]`.
        selected: Which anchors count, `[B, 1]`.
        centers: Centers `[K, D]`; zeros for a class that has none, whose anchors do not count.
        temperatures: Temperatures `[K]`.
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows = functional.normalize(rows, dim=1)
        similar = ((rows @ rows.t()) / TEMPERATURE).exp()
        pairs = anchors.sum(dim=0) * negatives.sum(dim=0)
        mean = (anchors * (similar @ negatives)).sum(dim=0) / pairs.clamp(min=1)
        positive = (rows @ functional.normalize(centers, dim=1).t() / temperatures * anchors).sum(dim=1)
        negative = (anchors * (NEGATIVES * mean)).sum(dim=1)
        losses = functional.softplus((negative + 1e-8).log() - positive)
    weights = selected[:, 0] * (anchors * centers.any(dim=1)).sum(dim=1)
    return (weights * losses).sum() / (weights.sum() + 1e-8)
