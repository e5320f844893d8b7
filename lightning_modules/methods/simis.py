"""SimiS (Chen et al. 2022, arXiv 2211.11086)."""

from typing import Any

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels.selection import class_ranks
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.inference.predict_set import predict_set
from tailmatch.lightning_modules.losses.base import weighted_mean
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.pseudo_labels.growing_set import set_weights
from tailmatch.lightning_modules.pseudo_labels.label_memory import NONE, LabelMemory
from tailmatch.lightning_modules.training.distributed import gather_interleaved


class SimiS(FixMatch):
    r"""FixMatch whose labeled set is filled up after every epoch, with the unlabeled images that rare classes lack.

    After epoch e of E, the first being 0, the averaged weights predict all unlabeled images. To the given labels are
    added, for each class c, the most confident images that are predicted as c, whatever their confidence:

        floor(a (max pi - pi_c) n / K),    a = 1 - (e / E - 1)^2

    n is the number of given labels, and pi are the class shares of the labeled set of the last epoch, with its added
    images; so the numbers fall as the set fills. Each filling replaces the one before, and unlabeled images stay so.

    No loader is rebuilt: the labeled loss is the mean over the grown set, estimated from the labeled images of a batch
    and the added ones among its unlabeled images, in weak views (`GrowingSet`). The latter thus come as often as
    unlabeled images. Weak views pass through the network together with the others, and with a gradient, so that a step
    costs a third (mu = 2) to nearly a half (mu = 7) more than `FixMatch`'s.

    It assumes nothing of the unlabeled classes but that the most confident predictions of rare classes are right.

    Source: microsoft/Semi-supervised-learning `imb_algorithms/simis` (revision 8e72964), by the authors of the paper,
    which also has the labeled images in the unlabeled set. Its logit adjustment of the labeled loss, off by default, is
    left out.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        **kwargs: Arguments of `FixMatch`.
    """

    shares: Tensor
    filled: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.added = LabelMemory()
        self.register_buffer("shares", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))  # the epoch that it was last done for
        self._filled: int | None = None  # the same, without the device

    def setup(self, stage: str) -> None:
        """Take the number of unlabeled images.

        Raises:
            SettingsError: The training has no known number of epochs.
        """
        super().setup(stage)
        if stage == "fit":
            self.added.adapt(len(self.trainer.datamodule.unlabeled))  # type: ignore[attr-defined]
            if self.total_epochs() == float("inf"):
                raise SettingsError("SimiS adds images by the share of epochs that are done: set trainer.max_epochs")

    def prior_in_logits(self) -> Tensor:
        """Return the class counts `[K]` of the grown set, which the logits are trained on."""
        return self.class_counts + self.added.counts(self.num_classes)[1:]

    def begin_fit(self) -> None:
        """Begin with the class shares of the given labels."""
        super().begin_fit()
        self.shares.copy_(self.class_counts / self.class_counts.sum())

    def on_train_start(self) -> None:
        """Learn how often the labeled set was filled already, as in a resumed run."""
        self._filled = int(self.filled)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Fill the labeled set before the first step of an epoch but the first."""
        if self._filled != self.trainer.current_epoch:
            self._filled = self.trainer.current_epoch
            self.filled.fill_(self._filled)
            numbers = missing(self.shares, self.class_counts, (self._filled - 1) / self.total_epochs())
            if numbers.any():
                self.fill(numbers)

    def fill(self, numbers: Tensor) -> None:
        """Predict all unlabeled images, and add the most confident of each class, as many as `numbers` `[K]` says."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        with self.evaluated_weights():
            rows = predict_set(self.trainer, self.network, data.evaluation_loader(data.unlabeled), _most_likely)
        confidence, label = gather_interleaved(rows, len(data.unlabeled), torch.device("cpu")).unbind(dim=1)
        chosen = most_confident(confidence, label.long(), numbers.cpu())
        self.added.replace(torch.where(chosen, label.int(), NONE))
        counts = self.prior_in_logits()
        self.shares.copy_(counts / counts.sum())
        self.print(f"SimiS: {int(chosen.sum()):,} unlabeled images are added to the labels")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        count, both = len(labeled["weak"]), len(labeled["weak"]) + len(unlabeled["weak"])
        views = [labeled["weak"], unlabeled["weak"], *unlabeled["strong"]]
        logits = self.network(torch.cat(views)).float()
        given = torch.cat([logits[:count], logits[both:]])
        _, parts = self.fixmatch_loss(batch, logits[count:both].detach(), given)
        own = self.added.labels[unlabeled["index"]].long()
        weights = set_weights(count, self.class_counts.sum(), own, len(self.added.labels) - 1)
        target = torch.cat([labeled["target"], own.clamp(min=0)])
        losses = self.cross_entropy(shifted(logits[:both], self.labeled_shift()), target)
        loss_labeled = weighted_mean(losses, weights)
        loss = loss_labeled + self.lambda_u * parts["loss_unlabeled"]
        self.track(loss=loss, added=(own >= 0).float().mean(), **(parts | {"loss_labeled": loss_labeled}))
        return loss


def missing(shares: Tensor, class_counts: Tensor, progress: float) -> Tensor:
    """Compute how many images are added to each class, `int64 [K]`.

    Args:
        shares: Class shares `[K]` of the labeled set of the last epoch.
        class_counts: Counts of the given labels, `[K]`.
        progress: The number e of the last epoch, from 0 on, over that of all, E.
    """
    strength = 1 - (progress - 1) ** 2
    return (strength * (shares.max() - shares) * class_counts.sum() / len(shares)).floor().long()


def most_confident(confidence: Tensor, label: Tensor, numbers: Tensor) -> Tensor:
    """Choose the most confident images of each class, of equal ones the first: `bool [N]`, on the CPU.

    Args:
        confidence: Confidences `float32 [N]`.
        label: Classes `int64 [N]`.
        numbers: The number of images of each class, `[K]`; fewer if a class has fewer.
    """
    every = torch.arange(len(label)).numpy()
    rank = class_ranks(label.numpy(), confidence.numpy(), every >= 0, every)
    return torch.from_numpy(rank) < numbers[label]


def _most_likely(probs: Tensor) -> Tensor:
    """Reduce predictions `[B, K]` to confidence and class, `float32 [B, 2]`."""
    confidence, label = probs.max(dim=1)
    return torch.stack([confidence, label.float()], dim=1)
