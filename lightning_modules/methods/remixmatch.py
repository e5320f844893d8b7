"""ReMixMatch (Berthelot et al., ICLR 2020, arXiv 1911.09785)."""

from typing import Any

import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_count
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.mixing import MixingClassifier
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.pseudo_labels.distribution_alignment import DistributionAlignment
from tailmatch.lightning_modules.views import StrongView, View, WeakView
from tailmatch.lightning_modules.views.base import to_device
from tailmatch.lightning_modules.views.rotation import rotate_quarters


class ReMixMatch(MixingClassifier):
    r"""MixMatch with distribution alignment, augmentation anchoring and a rotation loss.

    With the refined `q = sharpen(align(softmax(logits(weak))))`, all images mixed with each other (`MixingClassifier`),
    and one strong view of each unlabeled image rotated by a random number of quarter turns:

        loss = CE(mixed labeled) + ramp * lambda_u * CE(mixed weak and strong views, mixed q)
               + ramp * lambda_strong * CE(first strong view, q) + lambda_rotation * CE(turned first strong view, turns)

    The defaults are the paper's (section 4; google-research/remixmatch `remixmatch_no_cta.py`), except that the strong
    view is RandAugment with Cutout, in place of the authors' learned CTAugment. bbuing9/DARP has two strong views.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        strong_views: Number of strong views of each unlabeled image, at least 1.
        lambda_u: Weight of the mixed unlabeled loss after the ramp-up.
        lambda_strong: Weight, after the ramp-up, of the loss of the first strong view, which is not mixed.
        lambda_rotation: Weight of the rotation loss.
        align: Whether the class distribution of the pseudo-labels is aligned with that of the labeled images. For
            another target, add a `DistributionAlignment` to the trainer's callbacks; it replaces this one.
        labeled_strong: Whether labeled images get the strong view (algorithm 1 and both public codes) or the weak view.
        weak: Weak view; None is `WeakView()`.
        strong: Strong view; None is `StrongView()`.
        **kwargs: Other arguments of `MixingClassifier`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        strong_views: int = 8,
        lambda_u: float = 1.5,
        lambda_strong: float = 0.5,
        lambda_rotation: float = 0.5,
        align: bool = True,
        labeled_strong: bool = True,
        weak: View | None = None,
        strong: View | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_count("strong_views", strong_views)
        weights = {"lambda_u": lambda_u, "lambda_strong": lambda_strong, "lambda_rotation": lambda_rotation}
        for name, value in weights.items():
            check_at_least(name, value, 0)
        self.strong_views = strong_views
        self.lambda_u = lambda_u
        self.lambda_strong = lambda_strong
        self.lambda_rotation = lambda_rotation
        self.align = align
        self.labeled_strong = labeled_strong
        self.weak = weak or WeakView()
        self.strong = strong or StrongView()
        self.rotation_head = nn.Linear(self.network.feature_dim, 4)

    def configure_callbacks(self) -> list[Callback]:
        """Add distribution alignment, which is part of the method, unless the trainer already has one."""
        present = any(isinstance(callback, DistributionAlignment) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [*super().configure_callbacks(), *([DistributionAlignment()] if self.align and not present else [])]

    def make_views(self, batch: Batch) -> Batch:
        """Make one view of each labeled image; a weak, several strong and a rotated view of each unlabeled image."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        labeled["view"] = (self.strong if self.labeled_strong else self.weak)(labeled["image"])
        unlabeled["weak"] = self.weak(unlabeled["image"])
        unlabeled["strong"] = [self.strong(unlabeled["image"]) for _ in range(self.strong_views)]
        unlabeled["turns"] = to_device(torch.randint(4, (len(unlabeled["image"]),)), unlabeled["image"].device)
        unlabeled["turned"] = rotate_quarters(unlabeled["strong"][0], unlabeled["turns"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        unlabeled = batch["unlabeled"]
        with self.side_pass():
            with torch.no_grad():
                weak_logits = self.mixing_logits(unlabeled["weak"]).float()
            strong_logits = self.mixing_logits(unlabeled["strong"][0]).float()
        loss, parts = self.remixmatch_loss(batch, weak_logits, strong_logits)
        self.track(loss=loss, **parts)
        return loss

    def remixmatch_loss(
        self, batch: Batch, weak_logits: Tensor, strong_logits: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute ReMixMatch's loss `[]` and its parts, given logits of `mixing_logits`. Call this once in each step.

        Args:
            batch: Batch with the views of `make_views`.
            weak_logits: Logits `float32 [U, K]` of the weak views of the unlabeled images, without gradient.
            strong_logits: Logits `float32 [U, K]` of their first strong views.
        """
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            target, _ = self.pseudo_labels(weak_logits.softmax(dim=1), unlabeled["index"])
        with self.side_pass():
            turn_logits = self.rotation_head(self.network.features(unlabeled["turned"])).float()
        logits, mixed, unlabeled_logits, unlabeled_mixed = self.mixed_logits(
            labeled["view"], labeled["target"], [unlabeled["weak"], *unlabeled["strong"]], target
        )
        shift = self.unlabeled_shift()
        loss_labeled = functional.cross_entropy(shifted(logits, self.labeled_shift()), mixed)
        loss_unlabeled = functional.cross_entropy(shifted(unlabeled_logits, shift), unlabeled_mixed)
        loss_strong = functional.cross_entropy(shifted(strong_logits, shift), target)
        loss_rotation = functional.cross_entropy(turn_logits, unlabeled["turns"])
        ramped = self.ramp() * (self.lambda_u * loss_unlabeled + self.lambda_strong * loss_strong)
        loss = loss_labeled + ramped + self.lambda_rotation * loss_rotation
        return loss, {
            "loss_labeled": loss_labeled,
            "loss_unlabeled": loss_unlabeled,
            "loss_strong": loss_strong,
            "loss_rotation": loss_rotation,
            "confidence": target.amax(dim=1).mean(),
        }
