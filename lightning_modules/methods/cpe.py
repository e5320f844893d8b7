"""CPE (Ma et al., AAAI 2024, arXiv 2312.15702)."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_each, check_share
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.losses.base import check_every_class
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.networks.class_wise_head import ClassWiseHead
from tailmatch.lightning_modules.pseudo_labels.class_groups import branches_of
from tailmatch.lightning_modules.pseudo_labels.running_prior import log_shift
from tailmatch.lightning_modules.training.distributed import place, sum_over_processes


class CPE(FixMatch):
    r"""Three FixMatch heads with logit adjustments of different strength, on three BatchNorms of the last feature map.

    The map is normalized by three BatchNorms H, M and T before it is pooled. Logits of a head are its mean over these.
    With the labeled prior pi, and `q = softmax(z(weak))` of a head itself, its loss is

        CE(y, z(labeled) + tau log pi) + lambda_u * sum_i sum_b w_ib CE(argmax q_i, z_b(strong_i)) / sum_i sum_b w_ib
        w_ib = 1[max q_i >= threshold] * 1[argmax q_i is a class of branch b]

    H has all classes, M all but the share `cuts[0]` of them with the most labeled images, T all but `cuts[1]`. The
    second head is evaluated, and its logits are balanced. Remedies act on this head alone.

    Equations and defaults are those of machengcheng2016/CPE-LTSSL `imb_algorithms/cpe/cpe.py`, `nets/wrn/wrn_cbn.py`,
    whose cuts are the class numbers 2 and 4 of 10. There, one pass has all views, so that BatchNorm normalizes them
    together; here, the weak views pass separately, as in `FixMatch`.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        taus: Strength of the logit adjustment of each of the three heads, at least 0.
        cuts: Shares in [0, 1] of the classes, the most frequent ones, that the second and third branch leave out.
        **kwargs: Other arguments of `FixMatch`.

    Raises:
        SettingsError: An argument lies outside its domain, or `soft_targets` is true.
    """

    balanced_evaluation = True

    def __init__(
        self,
        num_classes: int,
        *,
        taus: Sequence[float] = (0.0, 2.0, 4.0),
        cuts: Sequence[float] = (0.2, 0.4),
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_each("taus", taus, check_at_least, 0, length=3)
        check_each("cuts", cuts, check_share, length=2)
        if cuts[0] > cuts[1]:
            raise SettingsError(f"cuts are {list(cuts)}; the first must not be above the second")
        if self.soft_targets:
            raise SettingsError("soft_targets is true, and the labels of CPE's heads are classes: leave it out")
        self.taus = tuple(taus)
        self.cuts = (0.0, *cuts)
        self.add_heads()

    def add_heads(self) -> None:
        """Add the first and the third head, and put the one that is evaluated in the place of the network's."""
        width = self.network.feature_dim
        if type(self.network.head) is not ClassWiseHead:
            self.network.head = ClassWiseHead(self.network.head, width, len(self.cuts))
        self.first, self.third = nn.Linear(width, self.num_classes), nn.Linear(width, self.num_classes)

    def experts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Return the three heads."""
        return self.first, cast(ClassWiseHead, self.network.head).head, self.third

    def setup(self, stage: str) -> None:
        """Refuse a fit without labeled images of a class."""
        super().setup(stage)
        if stage == "fit":
            check_every_class(type(self).__name__, self.class_counts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            weak = self.branch_logits(self.network.feature_map(unlabeled["weak"]))
        views = torch.cat([labeled["weak"], *unlabeled["strong"]])
        loss, parts = self.cpe_loss(batch, weak, self.branch_logits(self.network.feature_map(views)))
        self.track(loss=loss, **parts)
        return loss

    def cpe_loss(
        self, batch: Batch, weak: Sequence[Tensor], all_logits: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss `[]` of the heads and its parts. Call this once in each step.

        Args:
            batch: Batch with the views of `make_views`.
            weak: Logits of each head for the weak views, `float32 [branches, U, K]`, without gradient.
            all_logits: Those for the labeled images, then the strong views, `float32 [branches, B + S U, K]`.
        """
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        count = len(labeled["weak"])
        with torch.no_grad():
            probs = [logits.mean(dim=0).softmax(dim=1) for logits in weak]
            labeled_probs = all_logits[1][:, :count].mean(dim=0).softmax(dim=1)
            probs[1], weights = self.pseudo_labels(probs[1], unlabeled["index"], labeled_probs)
            accepted = [(row.amax(dim=1) >= self.threshold).float() for row in probs]
            accepted[1] = weights
        prior = self.class_counts / self.class_counts.sum()
        loss, parts = torch.zeros((), device=prior.device), dict[str, Tensor]()
        for name, tau, q, mask, logits in zip(NAMES, self.taus, probs, accepted, all_logits, strict=True):
            labeled_logits = logits[:, :count].mean(dim=0) + log_shift(prior, tau)
            strong_logits = logits[:, count:]
            if not name:  # remedies are those of the evaluated head
                labeled_logits = shifted(labeled_logits, self.labeled_shift())
                strong_logits = shifted(strong_logits, self.unlabeled_shift())
            loss_labeled = self.cross_entropy(labeled_logits, labeled["target"]).mean()
            loss_unlabeled = self.branch_loss(strong_logits, q.argmax(dim=1), mask)
            loss = loss + loss_labeled + self.lambda_u * loss_unlabeled
            parts |= {f"loss_labeled{name}": loss_labeled, f"loss_unlabeled{name}": loss_unlabeled}
            parts[f"selected{name}"] = mask.mean()
        return loss, parts | {"confidence": probs[1].amax(dim=1).mean()}

    def branch_logits(self, feature_map: Tensor) -> list[Tensor]:
        """Compute the logits `float32 [branches, B, K]` of the three heads from a feature map `[B, C, h, w]`."""
        branches = cast(ClassWiseHead, self.network.head).branches(feature_map)
        return [torch.stack([head(features).float() for features in branches]) for head in self.experts()]

    def branch_loss(self, logits: Tensor, label: Tensor, mask: Tensor) -> Tensor:
        """Compute the cross-entropy, `[]`, of strong views in the branches of their classes; a mean over these terms.

        Args:
            logits: Logits `float32 [branches, S U, K]` of the S strong views.
            label: Pseudo-labels `int64 [U]`.
            mask: Weights `float32 [U]` of the pseudo-labels.
        """
        views = logits.shape[1] // len(label)
        weights = (branches_of(label, self.class_counts, self.cuts) * mask).repeat(1, views).flatten()
        target = label.repeat(views * len(self.cuts))
        terms = sum_over_processes(weights.sum()) / place()[1]
        return (weights * self.cross_entropy(logits.flatten(0, 1), target)).sum() / (terms + 1e-12)


NAMES = ("_first", "", "_third")
"""What the names of the heads' training numbers end in; the second is evaluated."""
