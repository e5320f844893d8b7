"""BaCon (Feng et al., AAAI 2024, arXiv 2403.12986): contrast with class centers, on ABC."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_below_one, check_count, check_share
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.losses.center_contrast import (
    anchors_and_negatives,
    center_contrast,
    class_centers,
    class_temperatures,
)
from tailmatch.lightning_modules.methods.auxiliary_balanced import FixMatchABC
from tailmatch.lightning_modules.pseudo_labels.label_memory import LabelMemory
from tailmatch.lightning_modules.pseudo_labels.row_memory import RowMemory
from tailmatch.lightning_modules.training.distributed import gather_with_gradient
from tailmatch.lightning_modules.training.length import progress


class BaCon(FixMatchABC):
    r"""ABC, and a contrast of features with the centers of their classes, which fewer pseudo-labels make warmer.

    A projection h of the features has cosines s. Anchors of class i are labeled images of it, and unlabeled ones whose
    most probable class it is; negatives of i are other labeled images, and unlabeled ones that do not have i among
    their 3 most probable classes. With the balanced head's confidence c, the number f_i of the images' newest
    labels (by `balanced_threshold`), and the share t of the training that is done:

        loss = ABC + lambda_contrast * sum_a 1[c_a >= contrast_threshold] * -log(P_a / (P_a + 64 N_i)) / sum_a 1[...]
        P_a = exp(s(h_a, center_i) / t_i), t_i = 0.1 - 0.0005 (1 - t)^2 sqrt(f_i / max f)
        N_i = mean over all anchors and negatives of class i of exp(s / 0.1)

    A center is the mean of the newest projections of the images of its newest label, as of the end of the previous
    step, without gradient. Labels are written before the loss, and the projections of confident images after it. From
    the start of the contrast on, weak views pass with gradient. For ABC see `FixMatchABC`; its targets are soft, and
    those of the authors hard.

    Equations and defaults are those of fqhank/AAAI24-BaCon-CISSL `imb_algorithms/bacon/bacon.py`. Departures, where it
    has faults: labels are written by the probability (theirs: the logit), and those of labeled images always (theirs:
    if an unlabeled one is written); a class without a center has no anchors (theirs: NaN); images without a projection
    do not count in centers (theirs: as a vector of ones); with 3 classes or fewer, one class less rules a negative out.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        lambda_contrast: Weight of the contrast, at least 0.
        contrast_threshold: Confidence in [0, 1] from which on an image is an anchor that counts, and enters centers.
        contrast_start: Share of the training in [0, 1) at which the contrast begins.
        projection_dim: Size of the projection, at least 1.
        **kwargs: Other arguments of `FixMatchABC`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        lambda_contrast: float = 1.0,
        contrast_threshold: float = 0.98,
        contrast_start: float = 0.5,
        projection_dim: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_at_least("lambda_contrast", lambda_contrast, 0)
        check_share("contrast_threshold", contrast_threshold)
        check_below_one("contrast_start", contrast_start)
        check_count("projection_dim", projection_dim)
        self.lambda_contrast = lambda_contrast
        self.contrast_threshold = contrast_threshold
        self.contrast_start = contrast_start
        self.projection = nn.Linear(self.network.feature_dim, projection_dim)
        self.memory = LabelMemory()
        self.projections = RowMemory(projection_dim)
        self._labeled_images = 0

    def setup(self, stage: str) -> None:
        """Take the number of images, besides `FixMatchABC.setup`: labeled ones come first in the memories."""
        super().setup(stage)
        if stage == "fit":
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            self._labeled_images = len(data.labeled)
            for memory in (self.memory, self.projections):
                memory.adapt(len(data.labeled) + len(data.unlabeled))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        contrasts = progress(self.trainer) >= self.contrast_start
        with torch.set_grad_enabled(contrasts):
            weak = self.network.features_and_logits(unlabeled["weak"])
        views = self.network.features_and_logits(torch.cat([labeled["weak"], *unlabeled["strong"]]))
        loss, parts = self.abc_loss(batch, weak, views)

        count = len(labeled["weak"])
        index = torch.cat([labeled["index"], unlabeled["index"] + self._labeled_images])
        projected: Tensor = self.projection(torch.cat([views[0][:count], weak[0]])).float()
        with torch.no_grad():
            probs = torch.cat([views[1][:count], weak[1]]).float().softmax(dim=1)
            confidence, label = probs.max(dim=1)
            known = torch.arange(len(probs), device=probs.device) < count
            label = torch.where(known, functional.pad(labeled["target"], (0, len(probs) - count)), label)
            if contrasts:
                centers = class_centers(self.projections.rows[:-1], self.memory.labels[:-1], self.num_classes)
            self.memory.write(index, label, known | (confidence >= self.balanced_threshold))
            selected = confidence >= self.contrast_threshold
        loss_contrast = 0 * projected.mean()  # several processes need a gradient of every parameter
        if contrasts:
            anchors, negatives = anchors_and_negatives(probs, label, known)
            frequencies = self.memory.running_counts(self.num_classes)[1:]
            temperatures = class_temperatures(frequencies, progress(self.trainer))
            own = torch.cat([projected, anchors, negatives, selected[:, None].float()], dim=1)
            widths = [projected.shape[1], self.num_classes, self.num_classes, 1]
            projections, anchors, negatives, counted = torch.split(gather_with_gradient(own), widths, dim=1)
            loss_contrast = center_contrast(projections, anchors, negatives, counted, centers, temperatures)
        self.projections.write(index, projected, selected)
        loss = loss + self.lambda_contrast * loss_contrast
        self.track(loss=loss, loss_contrast=loss_contrast, anchors=selected.float().mean(), **parts)
        return loss
