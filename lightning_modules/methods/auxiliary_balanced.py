"""ABC, the auxiliary balanced classifier (Lee et al., NeurIPS 2021, arXiv 2110.10368), on FixMatch and ReMixMatch."""

import torch
from torch import Tensor

from tailmatch.lightning_modules.bases.balanced_head import BalancedHead
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.methods.remixmatch import ReMixMatch


class FixMatchABC(BalancedHead, FixMatch):
    r"""FixMatch on one head, and on the same features a balanced head, which is evaluated.

        loss = FixMatch + balanced

    See `BalancedHead` for the balanced loss. Remedies such as `DARP` act on FixMatch's pseudo-labels; the balanced head
    has its own. The authors have two strong views and hard targets in FixMatch's loss (`ABCfix.py`).
    """

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            weak = self.network.features_and_logits(unlabeled["weak"])
        views = self.network.features_and_logits(torch.cat([labeled["weak"], *unlabeled["strong"]]))
        loss, parts = self.abc_loss(batch, weak, views)
        self.track(loss=loss, **parts)
        return loss

    def abc_loss(
        self, batch: Batch, weak: tuple[Tensor, Tensor], views: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss `[]` of both heads and its parts. Call this once in each step.

        Args:
            batch: Batch with the views of `make_views`.
            weak: Features and balanced logits of the weak views of the unlabeled images.
            views: Features and balanced logits of the labeled images, then of the strong views.
        """
        target = batch["labeled"]["target"]
        with torch.no_grad():
            weak_logits = self.standard(weak[0]).float()
        loss, parts = self.fixmatch_loss(batch, weak_logits, self.standard(views[0]).float())
        labeled_logits, strong_logits = views[1].float().tensor_split([len(target)])
        strong = strong_logits.chunk(self.strong_views)
        loss_balanced = self.balanced_loss(labeled_logits, target, weak[1].detach().float(), strong)
        return loss + loss_balanced, {"loss_balanced": loss_balanced, **parts}


class ReMixMatchABC(BalancedHead, ReMixMatch):
    r"""ReMixMatch on one head, and on the same features a balanced head, which is evaluated.

        loss = ReMixMatch + balanced

    See `BalancedHead` for the balanced loss. Its images are not mixed, so that the labeled images and each strong view
    but the first pass through the network once more than in ReMixMatch. The authors have two strong views
    (`ABCremix.py`). Remedies act on ReMixMatch's pseudo-labels; the balanced head has its own.
    """

    def mixing_logits(self, images: Tensor) -> Tensor:
        """Compute logits `[B, K]` of the head that is trained on mixtures."""
        logits: Tensor = self.standard(self.network.features(images))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with self.side_pass():
            with torch.no_grad():
                weak_features, weak_balanced = self.network.features_and_logits(unlabeled["weak"])
                weak_logits = self.standard(weak_features).float()
            strong = [self.network.features_and_logits(view) for view in unlabeled["strong"]]
            labeled_balanced = self.network(labeled["view"]).float()
        loss, parts = self.remixmatch_loss(batch, weak_logits, self.standard(strong[0][0]).float())
        loss_balanced = self.balanced_loss(
            labeled_balanced, labeled["target"], weak_balanced.float(), [logits.float() for _, logits in strong]
        )
        loss = loss + loss_balanced
        self.track(loss=loss, loss_balanced=loss_balanced, **parts)
        return loss
