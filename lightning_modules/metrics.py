"""Metrics of long-tailed evaluation, all computed from three count vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

from tailmatch.datamodules.splitting.class_ranks import class_ranks

CONFUSION_LIMIT = 200
"""Largest number of classes K for which the K x K confusion matrix is kept; above it, its figure is unreadable."""

GROUPS = ("many", "medium", "few", "many_shot", "medium_shot", "few_shot")
"""Names of the groups of classes whose mean recall is a metric."""

METRICS = ("top1", "top5", "balanced_accuracy", "gm_recall", "macro_f1", "gm_f1", "loss", *GROUPS)
"""Names of all metrics."""


def recalls(correct: Tensor, support: Tensor) -> Tensor:
    """Compute recall per class, NaN where the class has no image. All `[K]`."""
    return correct / support


def geometric_mean(values: Tensor, num_classes: int) -> Tensor:
    """Compute the geometric mean of `[k]` values in [0, 1], with zeros raised to `1 / (100 K)`.

    The floor is that of bbuing9/DARP `common.py`, so that one class with recall 0 does not hide the others.
    """
    return values.clamp(min=1 / (100 * num_classes)).where(values == 0, values).log().mean().exp()


def f1_scores(correct: Tensor, support: Tensor, predicted: Tensor) -> Tensor:
    """Compute F1 per class, `2 tp / (support + predicted)`, NaN where both are zero. All `[K]`."""
    return 2 * correct / (support + predicted)


def shot_groups(class_counts: Tensor) -> dict[str, Tensor]:
    """Return masks `bool [K]` of many / medium / few classes by labeled count: > 100, 20 to 100, < 20.

    Liu et al. 2019 (arXiv 1904.05160).
    """
    return {
        "many_shot": class_counts > 100,
        "medium_shot": (class_counts >= 20) & (class_counts <= 100),
        "few_shot": class_counts < 20,
    }


def third_groups(class_counts: Tensor) -> dict[str, Tensor]:
    """Return masks `bool [K]` of the first, middle and last third of the classes, most frequent first.

    bbuing9/DARP `common.py`: K // 3 classes each in the first and the last group, the rest in the middle. There,
    classes are numbered by frequency; here they are sorted by it, and ties keep class order.
    """
    third = len(class_counts) // 3
    rank = class_ranks(class_counts)
    last = rank >= len(class_counts) - third
    return {"many": rank < third, "medium": (rank >= third) & ~last, "few": last}


def all_groups(class_counts: Tensor) -> dict[str, Tensor]:
    """Return the masks `bool [K]` of all groups of classes by name; none without class counts."""
    return {**third_groups(class_counts), **shot_groups(class_counts)} if len(class_counts) else {}


def reported(class_counts: Tensor, targets: Tensor) -> list[str]:
    """List the metrics that an evaluation reports: all but the groups in which no class has an image.

    Args:
        class_counts: Labeled images of each class, `int64 [K]`.
        targets: Classes of the evaluated images, `int64 [N]`.
    """
    present = torch.bincount(targets, minlength=len(class_counts)) > 0
    groups = all_groups(class_counts)
    return [name for name in METRICS if name not in GROUPS or (name in groups and bool((groups[name] & present).any()))]


@dataclass  # not frozen: torchmetrics rebuilds what `compute` returns
class Evaluation:
    """Metrics of one evaluation pass.

    Attributes:
        scalars: Metrics `[]` by name.
        recall: Recall of each class, `[K]`; NaN for classes without an image.
        support: Number of images of each class, `int64 [K]`.
        predicted: Number of images that are predicted as each class, `int64 [K]`.
        confusion: Confusion matrix `int64 [K, K]`, rows are true classes; None above `CONFUSION_LIMIT` classes.
    """

    scalars: dict[str, Tensor]
    recall: Tensor
    support: Tensor
    predicted: Tensor
    confusion: Tensor | None

    @property
    def only_class(self) -> int | None:
        """The class that all images of several classes are predicted as; None if they are told apart at all."""
        single = len(self.support) > 1 and int((self.predicted > 0).sum()) == 1 and int((self.support > 0).sum()) > 1
        return int(self.predicted.argmax()) if single else None


class LongTailMetrics(Metric):
    """Counters from which all metrics follow, exact over batches and processes.

    `compute` returns an `Evaluation` with, under their names in the log: `top1`, `top5`, `balanced_accuracy` (mean
    recall), `gm_recall` (geometric mean, with DARP's floor), `macro_f1`, `gm_f1`, recall over `many` / `medium` / `few`
    thirds and `many_shot` / `medium_shot` / `few_shot`, and `loss` (cross-entropy in nats). Means leave out classes
    without an evaluation image; a group in which no class has one is not reported.

    Args:
        num_classes: Number of classes K.
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
        """Count a batch of `logits [B, K]` with `target int64 [B]`."""
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
        """Compute all metrics; groups need `class_counts [K]`, the labeled images per class."""
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
        for name, group in all_groups(counts).items():
            if (group & present).any():
                scalars[name] = recall[group & present].mean()
        confusion = self.confusion if self.keeps_confusion else None
        return Evaluation(scalars, recall, self.support.clone(), self.predicted.clone(), confusion)
