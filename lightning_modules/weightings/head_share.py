"""The class thresholds of Adsh (Guo and Li, ICML 2022), class-imbalanced semi-supervised learning."""

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from tailmatch.datamodules.arguments import check_positive
from tailmatch.lightning_modules.pseudo_labels.label_memory import Interval, PredictionMemory
from tailmatch.lightning_modules.training.length import warn_unless_reached
from tailmatch.lightning_modules.weightings.base import Weighting


class HeadShareThresholds(Weighting):
    r"""Adsh: thresholds by which each class has the same share of its predictions selected as the head class.

    The head class is that with the most labeled images, and its threshold is the method's. All thresholds begin there;
    after `start` steps and every `every` further ones, they follow from the newest predictions of the unlabeled images:

        r = share of the images predicted as the head class whose confidence is at least the threshold
        threshold_c = min(threshold, confidence of rank max(1, floor(r n_c)) among the n_c images predicted as c)

    A class that is never predicted keeps its threshold. With them, the label is the class of the largest
    `p_c / threshold_c`, and it counts if the prediction of that class reaches its threshold. So this is a refiner too.

    The rank is the paper's. wujianP/ImbalancedSSL `Adsh/train_fix_cifar10.py` (the authors' code, as published with
    another method) takes the next one, rounded, and always the class 0 as the head class. There, r is 1 if no image of
    that class is confident, so that all images are selected; here it is 0. It predicts all images before an epoch;
    here, predictions are those of the steps, which costs no pass.

    Args:
        every: Number of steps between changes of the thresholds, at least 1; the authors' epoch has 500.
        start: Number of steps before the first interval, at least 0. The thresholds first change after one interval
            more; the authors' after two epochs.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    thresholds: Tensor
    head: Tensor

    def __init__(self, every: int = 500, start: int = 500) -> None:
        super().__init__()
        self.interval = Interval(every, start)
        self.memory = PredictionMemory()

    def prepare(self, num_classes: int, threshold: float) -> None:
        """See `Weighting.prepare`."""
        super().prepare(num_classes, threshold)
        check_positive("threshold", threshold)
        self.register_buffer("thresholds", torch.full((num_classes,), float(threshold)))
        self.register_buffer("head", torch.tensor(0), persistent=False)

    def check_length(self, trainer: Trainer) -> None:
        """See `Weighting.check_length`."""
        first = self.interval.start + self.interval.every
        warn_unless_reached(trainer, "the sum of start and every", first, "the thresholds")

    def adapt(self, images: int, class_counts: Tensor) -> None:
        """See `Weighting.adapt`."""
        self.memory.adapt(images)
        self.head = class_counts.argmax().to(self.head.device)

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Divide predictions `[B, K]` by the thresholds, and normalize; see `PseudoLabelRefiner.refine`."""
        scaled = probs / self.thresholds
        return scaled / scaled.sum(dim=1, keepdim=True)

    def forward(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """See `Weighting.forward`."""
        label = refined.argmax(dim=1)
        weights = (probs.gather(1, label[:, None])[:, 0] >= self.thresholds[label]).float()
        self.memory.predict(index, probs)
        if self.interval.tick():
            labels, confidence = self.memory.labels[:-1].long(), self.memory.confidence[:-1]
            moved = head_share_thresholds(labels, confidence, self.head, self.thresholds, self.threshold)
            self.thresholds.copy_(moved)
        return weights


def head_share_thresholds(labels: Tensor, confidence: Tensor, head: Tensor, before: Tensor, threshold: float) -> Tensor:
    """Compute the thresholds of the classes, `float32 [K]`.

    Args:
        labels: Predicted classes `int64 [N]`, -1 for none.
        confidence: Their probabilities `float32 [N]`.
        head: The head class, `int64 []`.
        before: The thresholds before, `float32 [K]`, which classes without predictions keep.
        threshold: The largest threshold.
    """
    order = confidence.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]  # by class, then by confidence
    counts = torch.zeros(1 + len(before), dtype=torch.long, device=labels.device)
    counts = counts.index_add_(0, labels + 1, torch.ones_like(labels))
    starts, sizes = counts.cumsum(0)[:-1], counts[1:]
    confident = ((labels == head) & (confidence >= threshold)).sum()
    head_size = sizes.gather(0, head[None]).clamp(min=1)
    rank = (confident * sizes // head_size).clamp(min=1)
    place = (starts + rank - 1).clamp(max=len(labels) - 1)
    found = confidence[order[place]].clamp(max=threshold)
    return torch.where((sizes > 0) & (sizes.gather(0, head[None]) > 0), found, before)
