"""SimMatch (Zheng, You, Huang, Wang, Qian and Xu, CVPR 2022, arXiv 2203.06915)."""

from typing import Any

import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_count
from tailmatch.lightning_modules.bases.averaged_teacher import AveragedTeacher
from tailmatch.lightning_modules.bases.features import data_module_of
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages
from tailmatch.lightning_modules.pseudo_labels.distribution_alignment import DistributionAlignment
from tailmatch.lightning_modules.pseudo_labels.neighbors import Neighbors
from tailmatch.lightning_modules.training.length import check_reached


class SimMatch(AveragedTeacher, FixMatch):
    r"""FixMatch of the averaged network, whose pseudo-labels and similarities to labeled images correct each other.

    A memory has the averaged network's embedding m_i of each labeled image i, of class y_i. With the averaged network's
    aligned prediction p and embedding e on the weak view, and the network's embedding s on a strong view:

        w_i ~ exp(e . m_i / T)               a_k = sum of w_i over the images of class k
        q = smoothing p + (1 - smoothing) a                    is FixMatch's soft pseudo-label
        c_i ~ w_i p[y_i]                                       the similarities, corrected by the prediction
        loss = FixMatch + lambda_instances * mean(CE(c, softmax(s . m / T)))

    Embeddings are projections of length 1. The last mean is over all rows. In the first `warmup_steps`, smoothing is 1
    and lambda_instances 0. A step's labeled images enter the memory after its losses.

    Equations are those of mingkai-zheng/simmatch `models/simmatch.py` with `--eman`, whose teacher is evaluated with
    averaged BatchNorm statistics. Defaults are those of microsoft/Semi-supervised-learning `config/classic_cv/simmatch`
    for CIFAR; for ImageNet, the authors have `threshold` 0.7, `lambda_u` 10 and `lambda_instances` 5.
    Departures: images that have not come yet have no weight (theirs: random embeddings of class 0); alignment is by
    earlier batches, from a uniform mean on; for CIFAR, the paper has no teacher, but an average for each embedding.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        smoothing: Share in [0, 1] of the prediction in a pseudo-label.
        similarity_temperature: Temperature T of the similarities, above 0.
        lambda_instances: Weight of the loss of similarities, at least 0.
        align: Whether predictions are aligned with equally frequent classes, by the last `align_batches` batches.
        align_batches: Number of batches, at least 1: 256 in the authors' code; others have 32.
        dim: Size of an embedding.
        warmup_steps: Number of optimizer steps without similarities, at least 1 and less than all; an epoch in the
            authors' code.
        **kwargs: Other arguments of `FixMatch`, but for `soft_targets`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        smoothing: float = 0.9,
        similarity_temperature: float = 0.1,
        lambda_instances: float = 1.0,
        align: bool = True,
        align_batches: int = 256,
        dim: int = 128,
        warmup_steps: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, soft_targets=True, **kwargs)
        check_at_least("lambda_instances", lambda_instances, 0)
        check_count("align_batches", align_batches)
        check_count("warmup_steps", warmup_steps)
        self.lambda_instances = lambda_instances
        self.align, self.align_batches = align, align_batches
        self.warmup_steps = warmup_steps
        self.neighbors = Neighbors(dim, smoothing, similarity_temperature)
        width = self.network.feature_dim
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
        self.add_refiner(self.neighbors)

    def configure_callbacks(self) -> list[Callback]:
        """Add distribution alignment, which is part of the method, unless the trainer already has one."""
        present = self._trainer is not None and any(
            isinstance(callback, DistributionAlignment)
            for callback in self._trainer.callbacks  # type: ignore[attr-defined]
        )
        alignment = DistributionAlignment([1.0] * self.num_classes, self.align_batches)
        return [*super().configure_callbacks(), *([alignment] if self.align and not present else [])]

    def setup(self, stage: str) -> None:
        """Learn the number of labeled images; refuse a fit that ends in its warm-up."""
        super().setup(stage)
        if stage == "fit":
            check_reached(self.trainer, "warmup_steps", self.warmup_steps, "SimMatch's use of similarities")
            self.neighbors.adapt(len(data_module_of(self).labeled))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled, count = batch["labeled"], batch["unlabeled"], len(batch["labeled"]["weak"])
        weak_logits, keys = self.averaged(self.embed, torch.cat([labeled["weak"], unlabeled["weak"]]))
        logits, queries = self.embed(torch.cat([labeled["weak"], *unlabeled["strong"]]))
        began = self.trainer.global_step >= self.warmup_steps
        self.neighbors.look(keys[count:], smooths=began)
        loss, parts = self.fixmatch_loss(batch, weak_logits[count:], logits)
        target = self.neighbors.corrected.repeat(self.strong_views, 1)
        loss_instances = functional.cross_entropy(self.neighbors.similarities(queries[count:]), target)
        loss_instances = began * loss_instances  # the projection has a gradient in each step
        loss = loss + self.lambda_instances * loss_instances
        self.neighbors.write(labeled["index"], keys[:count], labeled["target"])
        self.track(loss=loss, loss_instances=loss_instances, **parts)
        return loss

    def embed(self, images: Tensor | TaggedImages) -> tuple[Tensor, Tensor]:
        """Compute logits `float32 [B, K]` and embeddings of length 1, `float32 [B, dim]`."""
        features, logits = self.network.features_and_logits(images)
        return logits.float(), functional.normalize(self.projection(features).float(), dim=1)
