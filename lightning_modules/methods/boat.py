"""BOAT, later named DeCon (Gan, Wei and Zhang 2024, arXiv 2406.13187)."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import check_at_least
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.networks.unbiased_head import UnbiasedHead
from tailmatch.lightning_modules.pseudo_labels.running_prior import RunningPrior, log_shift
from tailmatch.lightning_modules.training.distributed import mean_over_processes

FLOOR = 1e-12
"""Added to `prior^tau` of the labeled prior, so that a class without images has a finite shift (authors' code)."""

SCALE_START, SCALE_MOMENTUM = 0.1, 0.9
"""Start and momentum of the running means of confidence and agreement (authors' code)."""


class BOAT(FixMatch):
    r"""Two heads that exchange what they learn of the class frequencies; no assumption on those of unlabeled images.

    With the logits z of the standard head, b of the balanced head, the labeled prior pi, and the running means p and q
    of softmax(z(weak)) and softmax(b(weak)), updated at the beginning of a step:

        r = softmax(z(weak) - tau log p)
        s = max over the classes of softmax(z(weak)) * softmax(z(weak) - tau_agreement log p)
        loss = CE(z(labeled) + tau_labeled (log pi - log q)) + CE(b(labeled) + tau_balanced log pi)
               + lambda_u * mean(1[max softmax(z(weak)) >= threshold] * CE(argmax softmax(z(weak)), z(strong)))
               + lambda_u * mean(s * c / a * CE(argmax r, b(strong)))

    c and a are running means of max r and s, so that weights are about as large as confidences; all rows count. The
    balanced head is `network.head`. In evaluation, its logits are `b - tau_evaluation log q`, also in exported files:
    q is a part of the network. `LogitAdjustment` is refused, since this is the method's own. Remedies change the
    pseudo-labels of the standard head alone.

    Equations are those of Gank0078/BOAT `train.py`, and defaults those of its README for CIFAR-10. (For CIFAR-100, tau
    is 2.) Its checkpoints lack c and a, ours contain them. As in `FixMatch`, weak views pass through the network
    separately.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        tau: Strength of the adjustment of the balanced head's pseudo-labels, at least 0.
        tau_balanced: The strength in the balanced head's labeled loss.
        tau_labeled: The strength in the standard head's labeled loss.
        tau_agreement: The strength in the weights of the balanced head's pseudo-labels.
        tau_evaluation: The strength in the evaluated logits.
        momentum: Weight of the previous p and q, in [0, 1).
        strong_views: Number of strong views of each unlabeled image, at least 1.
        **kwargs: Other arguments of `FixMatch`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    balanced_evaluation = True
    labeled_prior: Tensor
    scale: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        tau: float = 1.0,
        tau_balanced: float = 2.0,
        tau_labeled: float = 2.0,
        tau_agreement: float = 1.0,
        tau_evaluation: float = 2.0,
        momentum: float = 0.999,
        strong_views: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, strong_views=strong_views, **kwargs)
        self.tau, self.tau_balanced, self.tau_labeled = tau, tau_balanced, tau_labeled
        self.tau_agreement, self.tau_evaluation = tau_agreement, tau_evaluation
        for name in ("tau", "tau_balanced", "tau_labeled", "tau_agreement", "tau_evaluation"):
            check_at_least(name, getattr(self, name), 0)
        self.standard = nn.Linear(self.network.feature_dim, num_classes)
        self.standard_prior = RunningPrior(num_classes, momentum)
        self.network.head = UnbiasedHead(self.network.head, RunningPrior(num_classes, momentum), tau_evaluation)
        self.register_buffer("labeled_prior", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("scale", torch.full((2,), SCALE_START))

    @property
    def balanced_prior(self) -> RunningPrior:
        """The running mean q of the balanced head's predictions."""
        return cast(UnbiasedHead, self.network.head).prior

    def begin_fit(self) -> None:
        """Take the prior of the labeled images."""
        super().begin_fit()
        self.labeled_prior.copy_(self.class_counts / self.class_counts.sum())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            features, weak_balanced = self.network.features_and_logits(unlabeled["weak"])
            weak = self.standard(features).float()
        self.standard_prior.update(weak.softmax(dim=1))
        self.balanced_prior.update(weak_balanced.float().softmax(dim=1))
        features, balanced = self.network.features_and_logits(torch.cat([labeled["weak"], *unlabeled["strong"]]))
        loss, parts = self.fixmatch_loss(batch, weak, self.standard(features).float())
        loss_balanced, weights = self.balanced_loss(batch, weak, balanced.float())
        loss = loss + loss_balanced
        self.track(loss=loss, loss_balanced=loss_balanced, weight_balanced=weights.mean(), **parts)
        return loss

    def labeled_shift(self) -> Tensor:
        """Return the shift `[K]` in the standard head's labeled loss: the method's own, and those of remedies."""
        labeled = log_shift(self.labeled_prior, self.tau_labeled, FLOOR)
        return shifted(labeled - log_shift(self.balanced_prior.probs, self.tau_labeled), super().labeled_shift())

    def balanced_loss(self, batch: Batch, weak: Tensor, balanced: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the balanced head's loss `[]` and its weights `[U]`, and update the running means of their scale.

        `weak` are the standard head's logits `float32 [U, K]` of the weak views, `balanced` the balanced head's
        `[B + S U, K]` of the labeled images, then of the strong views.
        """
        labeled_logits, strong_logits = balanced.tensor_split([len(batch["labeled"]["weak"])])
        confidence, pseudo_label = self._adjusted(weak, self.tau).max(dim=1)
        agreement = (weak.softmax(dim=1) * self._adjusted(weak, self.tau_agreement)).amax(dim=1)
        now = mean_over_processes(torch.stack([confidence, agreement], dim=1))
        self.scale.copy_(SCALE_MOMENTUM * self.scale + (1 - SCALE_MOMENTUM) * now)
        weights = agreement * self.scale[0] / self.scale[1]
        labeled_logits = labeled_logits + log_shift(self.labeled_prior, self.tau_balanced, FLOOR)
        loss_labeled = self.cross_entropy(labeled_logits, batch["labeled"]["target"]).mean()
        loss_strong = self.cross_entropy(strong_logits, pseudo_label.repeat(self.strong_views))
        return loss_labeled + self.lambda_u * (loss_strong * weights.repeat(self.strong_views)).mean(), weights

    def _adjusted(self, logits: Tensor, tau: float) -> Tensor:
        return (logits - log_shift(self.standard_prior.probs, tau)).softmax(dim=1)
