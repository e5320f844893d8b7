"""DyTrim (ICLR 2026): images are left out by their last loss, on CDMAD."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_positive_share, check_share
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.losses.base import check_every_class
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.pseudo_labels.row_memory import RowMemory
from tailmatch.lightning_modules.pseudo_labels.trimming import (
    UNSEEN,
    at_least_mean,
    largest_of_class,
    mean_of_kept,
    sizes_of_rest,
)
from tailmatch.lightning_modules.training.length import progress
from tailmatch.lightning_modules.views.base import to_device


@runtime_checkable
class Debiasing(Protocol):
    """A refiner that debiases by logits `bias [K]`, those of the step; None while it does not, as `CDMAD`."""

    bias: Tensor | None


class DyTrim(FixMatch):
    r"""FixMatch with soft targets, which leaves out images that have been learned; the callback `CDMAD` debiases it.

    The newest loss of each image is kept. With the shares r of the classes in what CDMAD subtracts, `softmax(g)`, or
    during its warm-up in the labeled images:

        labeled    of the n_c images of class c, the floor(n_c (1 - r_c)) with the largest losses, at least one
        unlabeled  images whose loss, summed over the strong views, is at least the mean loss; of others, a `share` is
                   drawn, which weighs 1 / share

    Both losses are means over the images that stay in a batch. After the share `end` of the training, all stay.

    Equations and defaults are those of Jiajun0425/DyTrim `dytrim.py`, `train.py`: no threshold, two strong views, the
    mean color in CDMAD (theirs is called black). There, samplers leave images out, anew for each pass over the rest, so
    that a step has none of them. Here, all images pass through the network, and those that are left out have weight 0:
    the expectation of a step is the same, with fewer images in it and no time saved. A sampler would depend on losses,
    and the images of a step could not be told from the seed and the step, as a resume needs. The losses of images that
    are left out stay as they are, as there.

    Departures: images are left out by the losses before the step, not by those at the begin of a pass; an image without
    a loss stays (theirs has the loss 1); each class keeps an image (theirs: none of a class with a single one); all
    shares `softmax(g)` are those of CDMAD's image in evaluation mode.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        share: Share, in (0, 1], of the unlabeled images below the mean loss that is drawn.
        end: Share of the training in [0, 1] after which no image is left out.
        draw_images: Whether images are drawn, or weighted by their expectation, which has less noise.
        threshold: See `FixMatch`.
        soft_targets: See `FixMatch`.
        strong_views: See `FixMatch`.
        **kwargs: Other arguments of `FixMatch`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    labeled_targets: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        share: float = 0.3,
        end: float = 0.875,
        draw_images: bool = True,
        threshold: float = 0.0,
        soft_targets: bool = True,
        strong_views: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_classes, threshold=threshold, soft_targets=soft_targets, strong_views=strong_views, **kwargs
        )
        check_positive_share("share", share)
        check_share("end", end)
        self.share, self.end, self.draw_images = share, end, draw_images
        self.labeled_losses, self.unlabeled_losses = RowMemory(1, UNSEEN), RowMemory(1, UNSEEN)
        self.register_buffer("labeled_targets", torch.zeros(0, dtype=torch.long), persistent=False)

    def setup(self, stage: str) -> None:
        """Take the number of images and the labels, besides `FixMatch.setup`.

        Raises:
            SettingsError: There is no CDMAD, or a class has no labeled image.
        """
        super().setup(stage)
        if stage != "fit":
            return
        check_every_class("DyTrim", self.class_counts)
        if not any(isinstance(aligner, Debiasing) for aligner in self._aligners):
            raise SettingsError("DyTrim leaves out images by what CDMAD subtracts: add --config callbacks/cdmad.yaml")
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.labeled_losses.adapt(len(data.labeled))
        self.unlabeled_losses.adapt(len(data.unlabeled))
        self.labeled_targets = data.labeled.targets.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            probs = self.network(unlabeled["weak"]).float().softmax(dim=1)
        logits = self.network(torch.cat([labeled["weak"], *unlabeled["strong"]])).float()
        labeled_logits, strong_logits = logits.tensor_split([len(labeled["weak"])])
        with torch.no_grad():
            labeled_probs = labeled_logits.softmax(dim=1)
            refined, selected = self.pseudo_labels(probs, unlabeled["index"], labeled_probs)
            target = refined if self.soft_targets else refined.argmax(dim=1)
            labeled_kept, weights, kept = self.left(labeled["index"], unlabeled["index"])
        losses = self.cross_entropy(shifted(labeled_logits, self.labeled_shift()), labeled["target"])
        strong_logits = shifted(strong_logits, self.unlabeled_shift())
        strong_losses = self.cross_entropy(strong_logits, torch.cat([target] * self.strong_views))
        sums = selected * strong_losses.view(self.strong_views, -1).sum(dim=0)
        self.labeled_losses.write(labeled["index"], losses.detach()[:, None], labeled_kept > 0)
        self.unlabeled_losses.write(unlabeled["index"], sums.detach()[:, None], kept > 0)
        loss_labeled = mean_of_kept(losses, labeled_kept, labeled_kept)
        loss_unlabeled = mean_of_kept(sums / self.strong_views, weights, kept)
        loss = loss_labeled + self.lambda_u * loss_unlabeled
        parts = {"loss_labeled": loss_labeled, "loss_unlabeled": loss_unlabeled, "selected": selected.mean()}
        self.track(loss=loss, kept_labeled=labeled_kept.mean(), kept=kept.mean(), **parts)
        return loss

    def left(self, labeled: Tensor, unlabeled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute which images of a step stay, given their positions `int64 [B]` and `[U]`. Ask after `pseudo_labels`.

        Returns:
            Whether labeled images stay, `float32 [B]`; weights of unlabeled images, `[U]`; and whether these stay, or
            with which probability, `[U]`.
        """
        everything = torch.ones_like(unlabeled, dtype=torch.float32)
        if progress(self.trainer) > self.end:
            return torch.ones_like(labeled, dtype=torch.float32), everything, everything
        [bias, *_] = [aligner.bias for aligner in self._aligners if isinstance(aligner, Debiasing)]
        shares = self.class_counts / self.class_counts.sum() if bias is None else bias.softmax(dim=0)
        sizes = sizes_of_rest(self.class_counts, shares)
        labeled_kept = largest_of_class(self.labeled_losses.rows[:-1, 0], self.labeled_targets, labeled, sizes).float()
        hard = at_least_mean(self.unlabeled_losses.rows[:-1, 0], unlabeled)
        kept = torch.where(hard, 1.0, self.share)
        if not self.draw_images:
            return labeled_kept, everything, kept
        drawn = (to_device(torch.rand(len(kept)), kept.device) < kept).float()
        return labeled_kept, drawn / kept, drawn
