"""DASO (Oh, Kim and Kweon, CVPR 2022, arXiv 2106.05682)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_count, check_positive
from tailmatch.lightning_modules.bases.averaged_teacher import AveragedTeacher
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.losses.base import check_every_class
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.pseudo_labels.class_queue import ClassQueue
from tailmatch.lightning_modules.pseudo_labels.running_prior import IntervalPrior
from tailmatch.lightning_modules.training.length import check_reached


class DASO(AveragedTeacher, FixMatch):
    r"""FixMatch whose pseudo-labels are blended with similarities to class means, the more the more frequent the class.

    A queue has the newest features of each class, which the averaged network computes of the labeled images; c_k is
    their mean. With the features f of the network, its prediction p on the weak view, and the shares m of the classes
    among the pseudo-labels of the last `every` steps:

        q = softmax_k(cos(f(weak), c_k) / similarity_temperature)    s = the same of f(strong)
        v_k = m_k^(1/T) / max m^(1/T)                                T = blend_temperature
        p' = (1 - v_c) p + v_c q, c = argmax p                       in place of p in FixMatch's loss
        loss = FixMatch + lambda_alignment * mean(CE(q, s))          the mean is over all rows

    Class means have no gradient. In the first `warmup_steps`, the loss is FixMatch's. The queue has the features of the
    step when q is computed. m counts the final pseudo-labels, also those below the threshold. Remedies refine p'.

    Equations and defaults are those of ytaek-oh/daso `lib/models/daso_model.py` and
    `configs/cifar10/fixmatch_daso.yaml`; as there, the averaged network's BatchNorm normalizes by the batch.
    Departures: weak views pass through the network separately, as in `FixMatch`; averages have the same decay from the
    first step on; m is uniform before it is counted. (microsoft/Semi-supervised-learning blends with the similarities
    of the previous batch.)

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        blend_temperature: Temperature T, above 0, of the shares: 1.5 if unlabeled classes are as frequent as labeled
            ones, else 0.3, by which only the most frequent pseudo-labels are blended.
        similarity_temperature: Temperature of the similarities, above 0.
        lambda_alignment: Weight of the alignment loss, at least 0.
        queue_size: Number of features of each class, at least 1.
        warmup_steps: Number of optimizer steps before pseudo-labels are blended, at least 0 and less than all.
        every: Number of steps between changes of the shares, at least 1.
        **kwargs: Other arguments of `FixMatch`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blend_temperature: float = 1.5,
        similarity_temperature: float = 0.05,
        lambda_alignment: float = 1.0,
        queue_size: int = 256,
        warmup_steps: int = 5000,
        every: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_positive("blend_temperature", blend_temperature)
        check_positive("similarity_temperature", similarity_temperature)
        check_at_least("lambda_alignment", lambda_alignment, 0)
        check_count("warmup_steps", warmup_steps, 0)
        self.blend_temperature = blend_temperature
        self.similarity_temperature = similarity_temperature
        self.lambda_alignment = lambda_alignment
        self.warmup_steps = warmup_steps
        self.queue = ClassQueue(num_classes, queue_size, self.network.feature_dim)
        self.shares = Shares(num_classes, momentum=0.0, every=every)
        self.add_observer(self.shares)

    def setup(self, stage: str) -> None:
        """Refuse a fit that ends in its warm-up, or has no labeled image of a class."""
        super().setup(stage)
        if stage == "fit":
            check_every_class("DASO", self.class_counts)
            check_reached(self.trainer, "warmup_steps", self.warmup_steps, "DASO's blend of pseudo-labels")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        averaged = self.averaged(self.network.features, labeled["weak"], in_training_mode=True)
        self.queue.update(averaged.float(), labeled["target"])
        with torch.no_grad():
            weak_features, weak_logits = self.network.features_and_logits(unlabeled["weak"])
            weak_logits = weak_logits.float()
        features, logits = self.network.features_and_logits(torch.cat([labeled["weak"], *unlabeled["strong"]]))
        loss_alignment = torch.zeros((), device=logits.device)
        if self.trainer.global_step >= self.warmup_steps:
            similar = self.similarities(weak_features).softmax(dim=1)
            weight = blend_weights(self.shares.probs, self.blend_temperature)
            weak_logits = blended(weak_logits.softmax(dim=1), similar, weight).log()
            strong = self.similarities(features[len(labeled["weak"]) :])
            loss_alignment = functional.cross_entropy(strong, similar.repeat(self.strong_views, 1))
        loss, parts = self.fixmatch_loss(batch, weak_logits, logits.float())
        loss = loss + self.lambda_alignment * loss_alignment
        self.track(loss=loss, loss_alignment=loss_alignment, **parts)
        return loss

    def similarities(self, features: Tensor) -> Tensor:
        """Compute the cosines of features `[B, D]` and class means, by the temperature: logits `float32 [B, K]`."""
        with torch.autocast(features.device.type, enabled=False):
            means = functional.normalize(self.queue.prototypes, dim=1)
            return functional.normalize(features.float(), dim=1) @ means.T / self.similarity_temperature


class Shares(IntervalPrior):
    """The shares of the classes among the pseudo-labels of an interval, also those that are not used."""

    def observe(self, raw: Tensor, refined: Tensor, weights: Tensor, index: Tensor) -> None:
        """Count the pseudo-labels of a step."""
        self.update(functional.one_hot(refined.argmax(dim=1), refined.shape[1]).sum(dim=0))


def blend_weights(shares: Tensor, temperature: float) -> Tensor:
    """Compute the weight of the similarities for each predicted class, `[K]` in [0, 1], from shares `[K]`."""
    return (shares / shares.max()) ** (1 / temperature)


def blended(probs: Tensor, similar: Tensor, weight: Tensor) -> Tensor:
    """Blend predictions `[B, K]` with similarities `[B, K]` by the weight `[K]` of the predicted class."""
    own = weight[probs.argmax(dim=1)][:, None]
    return (1 - own) * probs + own * similar
