"""ADELLO (Sanchez Aimar et al., ECCV 2024, arXiv 2306.04621)."""

from typing import Any

import torch
from pytorch_lightning import Callback
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_below_one
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.pseudo_labels.flexda import FlexDA
from tailmatch.lightning_modules.training.length import progress


class ADELLO(FixMatch):
    r"""FixMatch with `FlexDA`, and with soft targets for the images whose pseudo-labels are not confident.

    With the weights w of FixMatch's selection, the predictions q on the weak view, refined, and FlexDA's shifts:

        loss = CE(z + labeled shift, y) + lambda_u * mean(w * CE(argmax q, z(strong) + unlabeled shift))
               + lambda_c * mean((1 - w) * CE(q, z(strong) + unlabeled shift)), from a share of the training on

    FlexDA works with every method (`tailmatch.callbacks.FlexDA`); this class adds the last term, the complementary
    consistency, and brings FlexDA along, unless the trainer's callbacks have one with other settings. Without that
    term, FixMatch with `FlexDA(target="labeled")` is UDAL.

    Equations and defaults are those of emasa/ADELLO-LTSSL `fixmatch_distill.py` and its CIFAR configurations: the term
    begins at step 50,000 of 262,144. A temperature of it, exp(KL(uniform || p)) in the code, is off in all
    configurations (`distill_T`), and is not here.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        lambda_c: Weight of the complementary consistency, at least 0.
        complementary_start: Share of the training in [0, 1) at which it begins.
        **kwargs: Other arguments of `FixMatch`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        lambda_c: float = 1.0,
        complementary_start: float = 50_000 / 262_144,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_at_least("lambda_c", lambda_c, 0)
        check_below_one("complementary_start", complementary_start)
        self.lambda_c = lambda_c
        self.complementary_start = complementary_start

    def configure_callbacks(self) -> list[Callback]:
        """Add FlexDA, which is part of the method, unless the trainer already has one."""
        present = any(isinstance(callback, FlexDA) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [*super().configure_callbacks(), *([] if present else [FlexDA()])]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            probs = self.network(unlabeled["weak"]).float().softmax(dim=1)
            target, weights = self.pseudo_labels(probs, unlabeled["index"])
            confidence, pseudo_label = target.max(dim=1)
        logits = self.network(torch.cat([labeled["weak"], *unlabeled["strong"]])).float()
        labeled_logits, strong_logits = logits.tensor_split([len(labeled["weak"])])
        labeled_logits = shifted(labeled_logits, self.labeled_shift())
        strong_logits = shifted(strong_logits, self.unlabeled_shift())
        loss_labeled = self.cross_entropy(labeled_logits, labeled["target"]).mean()
        loss_strong = self.cross_entropy(strong_logits, pseudo_label.repeat(self.strong_views))
        loss_unlabeled = (loss_strong * weights.repeat(self.strong_views)).mean()
        loss_soft = functional.cross_entropy(strong_logits, target.repeat(self.strong_views, 1), reduction="none")
        loss_complementary = (loss_soft * (1 - weights).clamp(min=0).repeat(self.strong_views)).mean()
        lambda_c = self.lambda_c if progress(self.trainer) >= self.complementary_start else 0.0
        loss = loss_labeled + self.lambda_u * loss_unlabeled + lambda_c * loss_complementary
        self.track(
            loss=loss,
            loss_labeled=loss_labeled,
            loss_unlabeled=loss_unlabeled,
            loss_complementary=loss_complementary,
            selected=weights.mean(),
            confidence=confidence.mean(),
        )
        return loss
