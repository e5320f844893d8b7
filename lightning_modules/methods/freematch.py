"""FreeMatch (Wang et al., ICLR 2023, arXiv 2205.07246)."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.pseudo_labels.running_prior import soft_counts
from tailmatch.lightning_modules.training.distributed import place, sum_over_processes
from tailmatch.lightning_modules.weightings import SelfAdaptiveThresholds, Weighting

FLOOR = 1e-12
"""Added before the logarithm (both codes)."""


class FreeMatch(FixMatch):
    r"""FixMatch with `SelfAdaptiveThresholds`, and a term for diverse predictions on the strong views.

    Over the strong views of the selected images, let s be the mean prediction, and g the frequencies of the most
    probable classes. With p and h of the thresholds:

        a_k ~ p_k / h_k        b_k ~ s_k / g_k        (each normalized; x / 0 is 0)
        loss = FixMatch + lambda_fairness * sum_k a_k log(b_k + 1e-12)

    The term, a negative cross-entropy, is minimized as it stands, and 0 in a step that selects nothing. It assumes
    unlabeled classes of about equal frequency: on a long tail, leave it out with `lambda_fairness: 0`, which is
    FixMatch with the thresholds.

    Equations are those of TorchSSL `freematch_entropy` and microsoft/Semi-supervised-learning `freematch`, by the
    authors of the paper, and `lambda_fairness` that of the latter. (The paper's is 0.05 for some data sets; TorchSSL's
    files for CIFAR-10 have 0.) On several processes, s and g are those of all selected images; theirs are those of a
    process. Shifts of remedies are not in s.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        lambda_fairness: Weight of the term, at least 0.
        weighting: Thresholds with other settings; None is `SelfAdaptiveThresholds()`.
        **kwargs: Other arguments of `FixMatch`. `threshold` is refused, since there is none.

    Raises:
        SettingsError: An argument lies outside its domain, or the weighting is another.
    """

    def __init__(
        self, num_classes: int, *, lambda_fairness: float = 0.01, weighting: Weighting | None = None, **kwargs: Any
    ) -> None:
        weighting = SelfAdaptiveThresholds() if weighting is None else weighting
        if not isinstance(weighting, SelfAdaptiveThresholds):
            name = type(weighting).__name__
            raise SettingsError(f"weighting is {name}, and FreeMatch needs SelfAdaptiveThresholds: use FixMatch")
        super().__init__(num_classes, weighting=weighting, **kwargs)
        check_at_least("lambda_fairness", lambda_fairness, 0)
        self.lambda_fairness = lambda_fairness

    @property
    def thresholds(self) -> SelfAdaptiveThresholds:
        """The weighting, whose state and newest selection the fairness term has."""
        return cast(SelfAdaptiveThresholds, self.weighting)

    def fixmatch_loss(self, batch: Batch, weak_logits: Tensor, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute FreeMatch's loss `[]` and its parts; see `FixMatch.fixmatch_loss`."""
        loss, parts = super().fixmatch_loss(batch, weak_logits, logits)
        strong_probs = logits[len(batch["labeled"]["weak"]) :].softmax(dim=1)
        loss_fairness = self.fairness(strong_probs, self.thresholds.selected.repeat(self.strong_views))
        return loss + self.lambda_fairness * loss_fairness, parts | {"loss_fairness": loss_fairness}

    def fairness(self, probs: Tensor, selected: Tensor) -> Tensor:
        """Compute the fairness term `[]` of predictions `[S U, K]` on strong views; `selected [S U]` is 0 or 1."""
        classes = functional.one_hot(probs.argmax(dim=1), self.num_classes)
        own = soft_counts(probs, selected)
        counts = sum_over_processes(soft_counts(classes, selected))
        everywhere = sum_over_processes(own.detach())
        # The value of all processes, with a gradient whose mean over the processes is that of the joint batch:
        sums = everywhere + place()[1] * (own - own.detach())
        count = counts.sum()
        expected = corrected(self.thresholds.prior.probs, self.thresholds.histogram.probs)
        found = corrected(sums / count.clamp(min=1), counts / count.clamp(min=1))
        return (count > 0) * (expected * (found + FLOOR).log()).sum()


def corrected(probs: Tensor, histogram: Tensor) -> Tensor:
    """Compute `p_k / h_k`, normalized, of `[K]` each; where h_k is 0, the result is 0."""
    seen = histogram > 0
    ratios = torch.where(seen, probs / torch.where(seen, histogram, 1), 0)
    total = ratios.sum()
    return ratios / torch.where(total > 0, total, 1)
