"""Meta-Expert (Hou et al., ICML 2025, arXiv 2505.16341): a gate mixes the heads of CPE."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.losses.base import weighted_mean
from tailmatch.lightning_modules.losses.class_weights import EffectiveNumberWeights
from tailmatch.lightning_modules.methods.cpe import CPE
from tailmatch.lightning_modules.networks.expert_head import ExpertHead, mixed
from tailmatch.lightning_modules.pseudo_labels.class_groups import groups_of, trusted
from tailmatch.lightning_modules.pseudo_labels.running_prior import log_shift
from tailmatch.lightning_modules.training.distributed import sum_over_processes


class MetaExpert(CPE):
    r"""CPE, and a gate that mixes its three heads for each image; the mixture is evaluated.

    The gate's weights w' and its output g are those of `ExpertHead`; heads have logits z_k, and z_kb in branch b. From
    the epoch `start_epoch` on, with the shifts `tau_k log pi` and a distribution kappa over the heads:

        loss = CPE + CE_c(y, sum_k w'_k (z_k + tau_k log pi)) + CE_c(group of y, g)
               + lambda_u * (sum_k kappa_k mean CE(argmax F_k(weak), F_k(strong)) + mean CE(argmax g(weak), g(strong)))
        F_k = sum_b w'_b z_kb

    Groups are the classes of branch H that M has not, those of M that T has not, and those of T. CE_c weighs classes or
    groups by inverse effective numbers (beta 0.99). The epoch before counts the second head's confident labels, and
    kappa is the head that they suit: the third if the rare half of the classes has more than twice the smallest count
    of the frequent half, and not the reverse; the second if all counts are within a factor of 2; else the first. The
    evaluated logits are `sum_k w'_k z_k`. Remedies act on the second head's pseudo-labels.

    Equations and defaults are those of YaxinHou/Meta-Expert `metaexpert.py`, which never trains the gate: its optimizer
    is made before. Here it is trained. Departures: the gate reads the last features, not those of all depths; m counts
    images (theirs: whether a class is in a step, by which long tails below about 70 look uniform), and halves and
    groups go by rank; m is saved, so that kappa survives a resume.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        start_epoch: Number of epochs before the gate is trained, at least 1; the last of them counts labels.
        **kwargs: Other arguments of `CPE`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    confident: Tensor

    def __init__(self, num_classes: int, *, start_epoch: int = 20, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        check_count("start_epoch", start_epoch)
        self.start_epoch = start_epoch
        self.register_buffer("confident", torch.zeros(num_classes))
        self.register_buffer("loss_weights", torch.ones(num_classes), persistent=False)
        self.register_buffer("group_weights", torch.ones(len(self.cuts)), persistent=False)

    def add_heads(self) -> None:
        """Put the head that is evaluated, which has all three, in the place of the network's."""
        if not isinstance(self.network.head, ExpertHead):
            self.network.head = ExpertHead(self.network.head, self.network.feature_dim, self.num_classes)

    def experts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Return the three heads."""
        return self._head.experts()

    @property
    def _head(self) -> ExpertHead:
        return cast(ExpertHead, self.network.head)

    def setup(self, stage: str) -> None:
        """Take the labeled classes, besides `CPE.setup`.

        Raises:
            SettingsError: A group has no class, or the gate would not be trained.
        """
        super().setup(stage)
        if stage != "fit":
            return
        if self.start_epoch >= self.total_epochs():
            raise SettingsError(
                f"start_epoch is {self.start_epoch} and the training has {self.total_epochs()} epochs, so that the "
                "gate would not be trained: lower it"
            )
        counts = self.class_counts
        groups = groups_of(counts, self.cuts)
        if not bool(groups.any(dim=1).all()):
            raise SettingsError(
                f"cuts are {list(self.cuts[1:])}; of {self.num_classes} classes, they leave a head none"
            )
        self.loss_weights = EffectiveNumberWeights(0.99).weights(counts)
        self.group_weights = EffectiveNumberWeights(0.99).weights((groups * counts).sum(dim=1))

    def on_fit_start(self) -> None:
        """Give the evaluated head the groups and shifts, also in a resumed fit, whose options may be others."""
        counts = self.class_counts
        self._head.groups.copy_(groups_of(counts, self.cuts))
        self._head.shifts.copy_(torch.stack([log_shift(counts / counts.sum(), tau) for tau in self.taus]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        count, target = len(labeled["weak"]), labeled["target"]
        with torch.no_grad():
            weak_map = self.network.feature_map(unlabeled["weak"])
            weak = self.branch_logits(weak_map)
            weak_gate, weak_weights = self.gate(weak_map, weak)
            self.count(weak[1].mean(dim=0).softmax(dim=1))
        feature_map = self.network.feature_map(torch.cat([labeled["weak"], *unlabeled["strong"]]))
        logits = self.branch_logits(feature_map)
        gate, weights = self.gate(feature_map, logits)
        loss, parts = self.cpe_loss(batch, weak, logits)

        labeled_weights, strong_weights = weights.tensor_split([count])
        adjusted = [z[:, :count].mean(dim=0) + s for z, s in zip(logits, self._head.shifts, strict=True)]
        losses = self.cross_entropy(mixed(labeled_weights, adjusted), target)
        loss_fused = weighted_mean(losses, self.loss_weights[target])
        group = self._head.groups.argmax(dim=0)[target]
        losses = functional.cross_entropy(gate[:count], group, reduction="none")
        loss_gate = weighted_mean(losses, self.group_weights[group])
        loss_strong = self.consistency(gate[count:], weak_gate)
        for share, z_weak, z in zip(trusted(self.confident, self.class_counts), weak, logits, strict=True):
            strong = mixed(strong_weights, list(z[:, count:]))
            loss_strong = loss_strong + share * self.consistency(strong, mixed(weak_weights, list(z_weak)))
        trains_gate = float(self.trainer.current_epoch >= self.start_epoch)
        loss = loss + trains_gate * (loss_fused + loss_gate + self.lambda_u * loss_strong)
        self.track(loss=loss, loss_fused=loss_fused, loss_gate=loss_gate, loss_strong=loss_strong, **parts)
        return loss

    def consistency(self, strong: Tensor, weak: Tensor) -> Tensor:
        """Compute the mean cross-entropy `[]` of strong views with the largest logit of the weak views."""
        return self.cross_entropy(strong, weak.argmax(dim=1).repeat(self.strong_views)).mean()

    def gate(self, feature_map: Tensor, logits: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the gate's output and the weights of the heads, both `float32 [B, 3]`; see `ExpertHead.weights`."""
        return self._head.weights(feature_map.float().mean(dim=(2, 3)), [z.mean(dim=0) for z in logits])

    def count(self, probs: Tensor) -> None:
        """Count the second head's confident labels in the epoch before the gate is trained, from probs `[U, K]`."""
        if self.trainer.current_epoch == self.start_epoch - 1:
            confidence, label = probs.max(dim=1)
            confident = (confidence >= self.threshold).float()[:, None]
            self.confident += sum_over_processes((functional.one_hot(label, self.num_classes) * confident).sum(dim=0))
