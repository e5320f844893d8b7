"""Evaluation on long-tailed data: everything follows from three count vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

CONFUSION_LIMIT = 200
"""Most classes for which the K x K confusion matrix is kept: beyond, its figure cannot be read."""


def recalls(correct: Tensor, support: Tensor) -> Tensor:
    """Recall per class, NaN where the class has no image. All `[K]`."""
    return correct / support


def geometric_mean(values: Tensor, num_classes: int) -> Tensor:
    """Geometric mean of `[k]` values in [0, 1], zeros raised to `1 / (100 K)`.

    The floor is that of bbuing9/DARP `common.py`, so that one class with none right does not hide the others.
    """
    return values.clamp(min=1 / (100 * num_classes)).where(values == 0, values).log().mean().exp()


def f1_scores(correct: Tensor, support: Tensor, predicted: Tensor) -> Tensor:
    """F1 per class, `2 tp / (support + predicted)`, NaN where both are zero. All `[K]`."""
    return 2 * correct / (support + predicted)


def shot_groups(class_counts: Tensor) -> dict[str, Tensor]:
    """Masks `bool [K]` of many / medium / few classes by labeled count: > 100, 20 to 100, < 20.

    Liu et al. 2019 (arXiv 1904.05160).
    """
    return {
        "many_shot": class_counts > 100,
        "medium_shot": (class_counts >= 20) & (class_counts <= 100),
        "few_shot": class_counts < 20,
    }


def third_groups(class_counts: Tensor) -> dict[str, Tensor]:
    """Masks `bool [K]` of the first, middle and last third of the classes, most frequent first.

    bbuing9/DARP `common.py`: K // 3 classes first and last, the rest in the middle, in class order, which
    there is the order of frequency. Ties keep class order.
    """
    third = len(class_counts) // 3
    rank = torch.empty_like(class_counts)
    order = torch.argsort(class_counts, descending=True, stable=True)
    rank[order] = torch.arange(len(class_counts), device=rank.device, dtype=rank.dtype)
    last = rank >= len(class_counts) - third
    return {"many": rank < third, "medium": (rank >= third) & ~last, "few": last}


@dataclass  # not frozen: torchmetrics rebuilds what `compute` returns
class Evaluation:
    """Result of a pass.

    Attributes:
        scalars: Name to `[]` tensor.
        recall: `[K]`, NaN for classes without an image.
        confusion: `int64 [K, K]`, rows are true classes; None above `CONFUSION_LIMIT` classes.
    """

    scalars: dict[str, Tensor]
    recall: Tensor
    confusion: Tensor | None


class LongTailMetrics(Metric):
    """Counts what all metrics need; exact over batches and processes.

    `compute` gives an `Evaluation` with, under their names in the log: `top1`, `top5`,
    `balanced_accuracy` (mean recall), `gm_recall` (geometric mean, DARP's floor), `macro_f1`, `gm_f1`,
    recall over `many` / `medium` / `few` thirds and `many_shot` / `medium_shot` / `few_shot`, and `loss`
    (cross-entropy in nats). Classes without an evaluation image are left out of the means; a group without
    classes is left out altogether.

    Args:
        num_classes: K.
    """

    full_state_update = False
    correct: Tensor
    support: Tensor
    predicted: Tensor
    top5: Tensor
    loss: Tensor
    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("correct", "support", "predicted"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("top5", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("loss", torch.zeros(()), dist_reduce_fx="sum")
        self.keeps_confusion = num_classes <= CONFUSION_LIMIT
        if self.keeps_confusion:
            shape = (num_classes, num_classes)
            self.add_state("confusion", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: `logits [B, K]`, `target int64 [B]`."""
        logits = logits.float()
        ranked = logits.topk(min(5, self.num_classes), dim=1).indices
        prediction = ranked[:, 0]
        hit = ranked == target[:, None]
        self.correct.index_add_(0, target, hit[:, 0].long())
        self.support.index_add_(0, target, torch.ones_like(target))
        self.predicted.index_add_(0, prediction, torch.ones_like(prediction))
        self.top5 += hit.sum()
        self.loss += functional.cross_entropy(logits, target, reduction="sum")
        if self.keeps_confusion:
            pairs = target * self.num_classes + prediction
            self.confusion.view(-1).index_add_(0, pairs, torch.ones_like(pairs))

    def compute(self, class_counts: Tensor | Sequence[int] = ()) -> Evaluation:
        """Metrics of all that was counted; groups need the labeled images per class, `[K]`."""
        recall = recalls(self.correct, self.support)
        present = self.support > 0
        f1 = f1_scores(self.correct, self.support, self.predicted)[present]
        total = self.support.sum()
        scalars = {
            "top1": self.correct.sum() / total,
            "top5": self.top5 / total,
            "balanced_accuracy": recall[present].mean(),
            "gm_recall": geometric_mean(recall[present], self.num_classes),
            "macro_f1": f1.mean(),
            "gm_f1": geometric_mean(f1, self.num_classes),
            "loss": self.loss / total,
        }
        counts = torch.as_tensor(class_counts, device=recall.device)
        groups = {**third_groups(counts), **shot_groups(counts)} if len(counts) else {}
        for name, group in groups.items():
            if (group & present).any():
                scalars[name] = recall[group & present].mean()
        return Evaluation(scalars, recall, self.confusion if self.keeps_confusion else None)
