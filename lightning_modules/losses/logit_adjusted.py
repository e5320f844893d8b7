"""Logit adjustment (Menon et al. 2021, arXiv 2007.07314), balanced softmax (Ren et al. 2020, arXiv 2007.10740)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules.losses.base import ClassificationLoss


def log_prior(class_counts: Tensor | Sequence[float], tau: float = 1.0) -> Tensor:
    """Compute `tau * log(n_k / sum n)`, `float32 [K]`, of `class_counts [K]`; -inf for classes without images.

    (google-research/google-research `logit_adjustment/utils.py` adds 1e-12 to the prior instead.)

    Raises:
        SettingsError: A count is negative or not finite, or all are zero.
    """
    counts = torch.as_tensor(class_counts).double()
    if not counts.isfinite().all() or (counts < 0).any() or counts.sum() <= 0:
        raise SettingsError(f"class counts are {counts.tolist()}; they must be at least 0 and their sum above 0")
    return torch.xlogy(tau, counts / counts.sum()).float()


class LogitAdjusted(ClassificationLoss):
    """Logit-adjusted cross-entropy, `CE(logits + tau log prior)`, with the class prior of the labeled images.

    Menon et al., equation 10. The network learns logits without the prior: those of a balanced test set. A class
    without labeled images drops out of the softmax, which is the limit of a vanishing prior.

    It refuses `tailmatch.callbacks.LogitAdjustment`, which removes the prior from logits that were trained with other
    losses.

    Args:
        tau: Strength of the adjustment, at least 0; 1 as in the paper, 0 is cross-entropy.

    Raises:
        SettingsError: `tau` is negative.
    """

    shift: Tensor

    def __init__(self, tau: float = 1.0) -> None:
        super().__init__()
        check_at_least("tau", tau, 0)
        self.tau = tau
        self.balances = tau > 0
        self.register_buffer("shift", torch.empty(0), persistent=False)

    def adapt(self, class_counts: Tensor, head: nn.Module) -> None:
        """Take the prior from the class counts; see `ClassificationLoss.adapt`."""
        self.shift = log_prior(class_counts, self.tau)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `ClassificationLoss.forward`."""
        return functional.cross_entropy(logits + self.shift, target, reduction="none")


class BalancedSoftmax(LogitAdjusted):
    """Balanced softmax, `-log(n_y e^l_y / sum_k n_k e^l_k)`: the same as `LogitAdjusted` with tau 1.

    Ren et al., equation 4.
    """

    def __init__(self) -> None:
        super().__init__(tau=1.0)
