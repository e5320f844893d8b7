"""A head that is evaluated without what it has learned of class frequencies."""

from torch import Tensor, nn

from tailmatch.lightning_modules.pseudo_labels.running_prior import RunningPrior, log_shift


class UnbiasedHead(nn.Module):
    """A head whose logits lack, in evaluation mode, the running prior of its predictions: `logits - tau log prior`.

    Args:
        head: Head that computes logits `[B, K]`.
        prior: Prior that a method updates.
        tau: Strength, at least 0.
    """

    def __init__(self, head: nn.Module, prior: RunningPrior, tau: float) -> None:
        super().__init__()
        self.head = head
        self.prior = prior
        self.tau = tau

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[B, D]` to logits `[B, K]`."""
        logits: Tensor = self.head(features)
        return logits if self.training else logits - log_shift(self.prior.probs, self.tau)
