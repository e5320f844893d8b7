"""The weights of SoftMatch (Chen et al., ICLR 2023, arXiv 2301.10921)."""

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_below_one, check_positive
from tailmatch.lightning_modules.pseudo_labels.distribution_alignment import align
from tailmatch.lightning_modules.pseudo_labels.running_prior import RunningPrior
from tailmatch.lightning_modules.training.distributed import gather_rows
from tailmatch.lightning_modules.weightings.base import Weighting


class GaussianWeights(Weighting):
    r"""SoftMatch: all pseudo-labels count, those of less than the average confidence by a Gaussian.

    The state are running means of a step's pseudo-labels q: of the mean of their confidences max q (at first 1/K), of
    the variance of these (at first 1), and of q (p, at first uniform). They are updated first. With n = `sigmas`:

        m = max_k of q_k (1/K + 1e-6) / (p_k + 1e-6), normalized
        w = exp(-min(m - mean, 0)^2 / (2 variance / n^2))

    This uniform alignment is of the weight alone; labels are those of q. It gives pseudo-labels of rarely predicted
    classes more weight, and assumes unlabeled classes of equal frequency.

    The authors' two codes differ. The statistics are those before the alignment, as in TorchSSL `softmatch.py`
    (microsoft/Semi-supervised-learning: after it). The target of the alignment is uniform, as in the paper and in the
    second code (TorchSSL: a running mean of predictions of labeled images), and so is the first p, as in TorchSSL (the
    second code: that of the first step). A step of one image leaves the variance as it is; theirs becomes NaN.

    Args:
        momentum: Weight in [0, 1) of the previous means.
        sigmas: The number n above 0 by which the standard deviation is divided.
        align: Whether the confidence in the weight is that after uniform alignment.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    needs_threshold = False
    mean: Tensor
    variance: Tensor

    def __init__(self, momentum: float = 0.999, sigmas: float = 2.0, align: bool = True) -> None:
        super().__init__()
        check_below_one("momentum", momentum)
        check_positive("sigmas", sigmas)
        self.momentum = momentum
        self.sigmas = sigmas
        self.align = align

    def prepare(self, num_classes: int, threshold: float) -> None:
        """See `Weighting.prepare`."""
        super().prepare(num_classes, threshold)
        self.prior = RunningPrior(num_classes, self.momentum)
        self.register_buffer("mean", torch.tensor(1 / num_classes))
        self.register_buffer("variance", torch.tensor(1.0))

    def forward(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """See `Weighting.forward`."""
        confidence = refined.amax(dim=1)
        everywhere = gather_rows(confidence)
        self.mean.copy_(self.momentum * self.mean + (1 - self.momentum) * everywhere.mean())
        if len(everywhere) > 1:
            self.variance.copy_(self.momentum * self.variance + (1 - self.momentum) * everywhere.var())
        self.prior.update(refined)
        if self.align:
            uniform = torch.full_like(self.prior.probs, 1 / self.num_classes)
            confidence = align(refined, uniform, self.prior.probs).amax(dim=1)
        return gaussian_weights(confidence, self.mean, self.variance, self.sigmas)


def gaussian_weights(confidence: Tensor, mean: Tensor, variance: Tensor, sigmas: float = 2.0) -> Tensor:
    """Compute `exp(-min(m - mean, 0)^2 / (2 variance / sigmas^2))` of confidences m, `[B]`: 1 above the mean."""
    below = (confidence - mean).clamp(max=0)
    weights = (-(below**2) * sigmas**2 / (2 * variance)).exp()
    return torch.where(below < 0, weights, 1)  # of equal confidences, the variance is 0, and 0 / 0 is NaN
