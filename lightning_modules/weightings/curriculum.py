"""The class thresholds of FlexMatch, curriculum pseudo labeling (Zhang et al., NeurIPS 2021, arXiv 2110.08263)."""

from torch import Tensor

from tailmatch.datamodules.arguments import check_positive
from tailmatch.lightning_modules.pseudo_labels.label_memory import LabelMemory
from tailmatch.lightning_modules.weightings.base import Weighting


class CurriculumThresholds(Weighting):
    r"""FlexMatch: a threshold for each class, the lower the fewer unlabeled images were confident of the class.

    The state is the last confident pseudo-label of each unlabeled image: one whose probability reached the method's
    `threshold` tau, which is the same for all classes. With the numbers n of images of each class, and n_0 of those
    that have none yet:

        beta_c = n_c / max(n_0, n_1, ..., n_K)        threshold_c = tau * beta_c / (2 - beta_c)

    A pseudo-label counts if its largest refined probability is at least the threshold of its class. The thresholds are
    those before the step. A class that was never confident has the threshold 0.

    On a long tail, n follows how frequent a class is, not only how hard: the rarest classes keep low thresholds.

    Equations and defaults are those of TorchSSL `flexmatch.py`, whose authors are the paper's: the convex mapping, and
    n of images that are confident by tau, not by the threshold of the class, also in the paper (equation 5). Where all
    images have the same label, its beta stays as it was; here it is 1 for this class. On several processes, TorchSSL
    has the labels of a process' own images, here each has those of all.

    Args:
        warmup: Whether n_0 is among the numbers, so that all thresholds are low until most images had a confident
            label (equation 11).
    """

    def __init__(self, warmup: bool = True) -> None:
        super().__init__()
        self.warmup = warmup
        self.memory = LabelMemory()

    def prepare(self, num_classes: int, threshold: float) -> None:
        """See `Weighting.prepare`. A threshold of 0, by which all thresholds would be 0, is refused."""
        super().prepare(num_classes, threshold)
        check_positive("threshold", threshold)

    def adapt(self, images: int, class_counts: Tensor) -> None:
        """See `Weighting.adapt`."""
        self.memory.adapt(images)

    def forward(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """See `Weighting.forward`."""
        confidence, label = refined.max(dim=1)
        thresholds = curriculum_thresholds(self.memory.running_counts(self.num_classes), self.threshold, self.warmup)
        self.memory.write(index, label, confidence >= self.threshold)
        return (confidence >= thresholds[label]).float()


def curriculum_thresholds(counts: Tensor, threshold: float, warmup: bool = True) -> Tensor:
    """Compute `tau beta / (2 - beta)` of each class, `float32 [K]`.

    Args:
        counts: Number of images without a confident label, then of those of each class: `[1 + K]`.
        threshold: The fixed threshold tau.
        warmup: Whether the first of the counts is among those of which the largest has a beta of 1.
    """
    seen = counts[1:]
    beta = seen / (counts if warmup else seen).max().clamp(min=1)
    return threshold * beta / (2 - beta)
