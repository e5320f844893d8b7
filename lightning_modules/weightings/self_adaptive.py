"""The self-adaptive thresholds of FreeMatch (Wang et al., ICLR 2023, arXiv 2205.07246)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_below_one, check_each, check_share
from tailmatch.lightning_modules.pseudo_labels.running_prior import RunningPrior
from tailmatch.lightning_modules.training.distributed import gather_rows, mean_over_processes
from tailmatch.lightning_modules.weightings.base import Weighting


class SelfAdaptiveThresholds(Weighting):
    r"""FreeMatch: a threshold that follows the confidence of the network, times a factor of the class.

    The state, all of whose numbers begin at 1/K, are running means of a step's pseudo-labels: t of their confidence, p
    of their rows, and h of the most probable classes. They are updated first, then a pseudo-label counts if its largest
    refined probability is at least the threshold of its class:

        t <- m t + (1 - m) mean(max q)        p <- m p + (1 - m) mean(q)        threshold_c = t * p_c / max p

    A rare class, whose p is small, has a low threshold. `FreeMatch` also has the fairness term of the paper.

    Equations and the momentum are those of TorchSSL `freematch_entropy` and microsoft/Semi-supervised-learning
    `freematch`, both by the authors of the paper, and the same but for the options.

    Args:
        momentum: Weight m in [0, 1) of the previous means.
        quantile: Quantile in [0, 1] of the confidences in the place of their mean (the second code; 0.8 there).
        clip: Smallest and largest threshold of a class, in [0, 1]; [0.9, 0.95] for SVHN in the paper and in TorchSSL.
            (The second code clips t instead, to [0, 0.95].) None for no limits.

    Attributes:
        selected: Weights of the newest step, `float32 [B]`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    needs_threshold = False
    level: Tensor

    def __init__(
        self, momentum: float = 0.999, quantile: float | None = None, clip: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        check_below_one("momentum", momentum)
        if quantile is not None:
            check_share("quantile", quantile)
        if clip is not None:
            check_each("clip", clip, check_share, length=2)
            if clip[0] > clip[1]:
                raise SettingsError(f"clip is {list(clip)}; the first must not be above the second")
        self.selected = torch.empty(0)
        self.momentum = momentum
        self.quantile = quantile
        self.clip = None if clip is None else (clip[0], clip[1])

    def prepare(self, num_classes: int, threshold: float) -> None:
        """See `Weighting.prepare`."""
        super().prepare(num_classes, threshold)
        self.prior = RunningPrior(num_classes, self.momentum)
        self.histogram = RunningPrior(num_classes, self.momentum)
        self.register_buffer("level", torch.tensor(1 / num_classes))

    def thresholds(self) -> Tensor:
        """Compute the thresholds of the classes, `float32 [K]`."""
        thresholds = self.level * self.prior.probs / self.prior.probs.max()
        return thresholds if self.clip is None else thresholds.clamp(*self.clip)

    def forward(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """See `Weighting.forward`."""
        confidence, label = refined.max(dim=1)
        if self.quantile is None:
            level = mean_over_processes(confidence[:, None])[0]
        else:
            level = gather_rows(confidence).quantile(self.quantile)
        self.level.copy_(self.momentum * self.level + (1 - self.momentum) * level)
        self.prior.update(refined)
        self.histogram.update(functional.one_hot(label, self.num_classes))
        self.selected = (confidence >= self.thresholds()[label]).float()
        return self.selected
