"""CPG (NeurIPS 2025, arXiv 2510.03993)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_below_one, check_share
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import SemiSupervisedClassifier, shifted
from tailmatch.lightning_modules.losses.base import check_every_class, weighted_mean
from tailmatch.lightning_modules.pseudo_labels.auxiliary_head import AuxiliaryHead
from tailmatch.lightning_modules.pseudo_labels.feature_copies import noisy
from tailmatch.lightning_modules.pseudo_labels.growing_set import GrowingSet, Known, trusted_counts
from tailmatch.lightning_modules.pseudo_labels.running_prior import log_shift
from tailmatch.lightning_modules.pseudo_labels.vote_memory import VoteMemory, agreeing
from tailmatch.lightning_modules.training.length import total_batches
from tailmatch.lightning_modules.views import StrongView, View, WeakView
from tailmatch.lightning_modules.weightings.base import THRESHOLD


class CPG(SemiSupervisedClassifier):
    r"""A labeled set that grows: unlabeled images that win a vote join it, so that its class counts are known.

    The main head z is trained with logit adjustment by the counts N = n + S of labeled and accepted images; nothing is
    assumed of the unlabeled classes. Labels are smoothed: 1 - e on the class, e / (K - 1) elsewhere.

    1. Warm-up: CE(z(labeled) + log(N / sum N), y).
    2. Then, with `q = softmax(z + log S')` of the weak and the strong view, an image votes for argmax q if it is the
       same in both and both max q >= threshold (1 - e). S' are trusted counts (`trusted_counts`).
    3. Every `every` steps, the images that win their vote replace the accepted ones (`VoteMemory`), with their vote
       shares as targets. S, N and the copies follow; then all votes are forgotten.
    4. After the warm-up, features of the set have noisy copies with the same target: `copies` of each, and as soon as
       images are accepted, more in rare classes (`copies_of` N); those of dispersed ones lie farther (`ClassSpread`).

    The auxiliary head a trains the features and is not evaluated: CE(a(strong), argmax a(weak)) of all images, plus
    CE(a + log(N / sum N), y) of the set; labels are smoothed in the warm-up alone. No loader is rebuilt: the loss of
    the set is a weighted mean over the batch, whose expectation is the same (`GrowingSet`). Accepted images come, in
    weak views, as often as unlabeled ones. `LogitAdjustment` is refused, and remedies change the votes.

    Equations and defaults are those of YaxinHou/CPG `imb_algorithms/cpg/cpg.py` (262,144 steps). There, more than 12
    votes are needed, of about 201 visits in a window; images of a large set have fewer, so it is a share here. There,
    the spread of a class also grows with its frequency, by a fault in its sum, and is found by two passes, here from
    the features of the window's steps. Copies are drawn equally often, and weighted by their number. (The shift does
    not count them, as there.) Strong labeled views, which have no loss there, and the rotation head are left out. Votes
    are those of all processes, and checkpoints have all state; theirs have none.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        warmup_steps: Number of steps without votes and copies, at least 0.
        every: Number of steps of a window of votes, at least 1.
        threshold: Threshold in [0, 1] of a vote, before it is multiplied by 1 - e.
        label_smoothing: The e of smoothed labels, in [0, 1).
        vote_share: Share in [0, 1] of its visits that an accepted image exceeds with its votes.
        agreement: Share in [0, 1] of its votes that an accepted image exceeds with those for one class.
        least_votes: Smallest number of votes of an accepted image, at least 1.
        copies: Number of copies of features, at least 0; 0 for none. Rare classes may have dozens.
        auxiliary: Whether there is an auxiliary head.
        weak: Weak view of labeled and unlabeled images; None is `WeakView()`.
        strong: Strong view of unlabeled images; None is `StrongView()`.
        **kwargs: Other arguments of `SemiSupervisedClassifier`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    balanced_evaluation = True
    progress_bar = ("loss", "selected")

    def __init__(
        self,
        num_classes: int,
        *,
        warmup_steps: int = 30 * 1024,
        every: int = 5 * 1024,
        threshold: float = THRESHOLD,
        label_smoothing: float = 0.1,
        vote_share: float = 0.06,
        agreement: float = 0.8,
        least_votes: int = 2,
        copies: int = 10,
        auxiliary: bool = True,
        weak: View | None = None,
        strong: View | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_share("threshold", threshold)
        check_below_one("label_smoothing", label_smoothing)
        self.threshold, self.label_smoothing = threshold, label_smoothing
        self.weak, self.strong = weak or WeakView(), strong or StrongView()
        dim, memory = self.network.feature_dim, VoteMemory(vote_share, agreement, least_votes)
        self.grown = GrowingSet(num_classes, dim, warmup_steps, every, memory, copies)
        self.auxiliary = AuxiliaryHead(dim, num_classes) if auxiliary else None

    def setup(self, stage: str) -> None:
        """Take the number of unlabeled images; refuse a fit that ends before a vote, or lacks labels of a class."""
        super().setup(stage)
        if stage == "fit":
            check_every_class("CPG", self.class_counts)
            images = len(self.trainer.datamodule.unlabeled)  # type: ignore[attr-defined]
            self.grown.begin(images, total_batches(self.trainer))

    def make_views(self, batch: Batch) -> Batch:
        """Make a weak view of every image, and a strong view of the unlabeled ones."""
        for stream in batch.values():
            stream["weak"] = self.weak(stream["image"])
        batch["unlabeled"]["strong"] = self.strong(batch["unlabeled"]["image"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        views = [labeled["weak"], unlabeled["weak"], unlabeled["strong"]]
        features, logits = self.network.features_and_logits(torch.cat(views))
        features, logits = features.float(), logits.float()
        known = self.grown.known(labeled["target"], unlabeled["index"], self.class_counts, self.label_smoothing)
        numbers = self.vote(logits.detach()[len(labeled["target"]) :], unlabeled["index"])
        count = len(known.labels)
        counts = self.class_counts + self.grown.accepted
        shift = shifted(log_shift(counts / counts.sum()), self.labeled_shift())
        loss_main = self.main_loss(features[:count], logits[:count] + shift, shift, known)
        loss_auxiliary = torch.zeros_like(loss_main)
        if self.auxiliary is not None:
            smoothing = self.label_smoothing if self.grown.warms_up else 0.0
            loss_auxiliary = self.auxiliary.loss(features, known, shift, self.unlabeled_shift(), smoothing)
        self.grown.end_step(features.detach()[:count], known, self.class_counts)
        self.track(loss=loss_main + loss_auxiliary, loss_main=loss_main, loss_auxiliary=loss_auxiliary, **numbers)
        return loss_main + loss_auxiliary

    @torch.no_grad()
    def vote(self, logits: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Count the votes of a step, given the logits `[2 U, K]` of its weak, then its strong views."""
        counts = trusted_counts(self.grown.accepted, self.class_counts.min())
        weak, strong = (logits + log_shift(counts / counts.sum())).softmax(dim=1).chunk(2)
        refined, selected = self.pseudo_labels(weak, index)
        confidence, label = refined.max(dim=1)
        votes = agreeing(refined, strong, self.threshold * (1 - self.label_smoothing))
        if not self.grown.warms_up:
            self.grown.memory.vote(index, label, votes)
        return {"selected": selected.mean(), "votes": votes.float().mean(), "confidence": confidence.mean()}

    def weigh(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """Tell which images are accepted."""
        return (self.grown.memory.labels[index] >= 0).float()

    def main_loss(self, features: Tensor, logits: Tensor, shift: Tensor, known: Known) -> Tensor:
        """Compute the loss `[]` of the main head for features `[n, D]` of the set and their shifted logits `[n, K]`."""
        weights, logits, drawn = known.weights[:, None], logits[:, None], self.grown.drawn
        if drawn and not self.grown.warms_up:
            copies = noisy(features, self.grown.spread.radii[known.labels], drawn)
            copied = self.network.head(copies.flatten(0, 1)).float().unflatten(0, (-1, drawn))
            logits = torch.cat([logits, copied + shift], dim=1)
            weights = weights * self.grown.copy_weights()[known.labels]
        targets = known.targets[:, None].expand_as(logits).flatten(0, 1)
        losses = functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
        return weighted_mean(losses, weights.flatten())
