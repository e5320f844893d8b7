"""CoSSL (Fan, Dai, Kukleva and Schiele, CVPR 2022, arXiv 2112.04564)."""

from typing import Any, cast

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_below_one, check_count, check_share
from tailmatch.lightning_modules.bases.averaged_teacher import AveragedTeacher
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.losses.base import check_every_class
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.networks.teacher_head import TeacherHead
from tailmatch.lightning_modules.training.adam_head import AdamHead
from tailmatch.lightning_modules.training.weight_averaging import average_into
from tailmatch.lightning_modules.views.base import to_device


class CoSSL(AveragedTeacher, FixMatch):
    r"""FixMatch whose pseudo-labels come from a balanced classifier on averaged features; the two teach each other.

    In the first `warmup` of the training, it is FixMatch. From then on, with the features g of the averaged network and
    the teacher's linear head t:

    1. The pseudo-labels of FixMatch's loss are those of t(g(weak)). The loss trains the network with its own head.
    2. t takes a step of Adam on CE(t(x), y). An image of a third stream, in which all classes are equally frequent, has
       x = g(strong); with probability (n_max - n_y) / n_max, instead, `x = a g(strong) + (1 - a) g(strong u)`, with
       a ~ U(`smallest_share`, 1) and a random unlabeled image u.
    3. t is averaged with `ema_decay`. The averaged t on the averaged network is evaluated, and its logits are balanced.

    t learns (2, 3) in the last `teacher_steps` of the warm-up already. The third stream is the data module's
    `balanced`: as a stream, it is the same after a resume and on any number of processes. No gradient of t reaches the
    network. Remedies change the teacher's pseudo-labels.

    Equations and defaults are those of YUE-FAN/CoSSL `train_cifar_fix_cossl.py` and `run_cifar10.sh`; n are labeled
    counts. Departures: the authors' u is of both sets; and they first train t in 10 epochs of 500 steps after the
    warm-up, on features computed once and enhanced differently (`utils/tfe_init.py`). As in `FixMatch`, weak views pass
    through the network separately in the warm-up. (In microsoft/Semi-supervised-learning, nothing is enhanced.)

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        warmup: Share of the training, in [0, 1), before the teacher's pseudo-labels are used.
        teacher_steps: Number of steps for which the teacher is trained before that, at least 0.
        smallest_share: Smallest share, in [0, 1], of an image's own features in enhanced ones: 0.6 for CIFAR-10, in
            other scripts 0.8.
        teacher_lr: Adam's learning rate for the teacher's head, above 0.
        teacher_weight_decay: Adam's factor of the L2 penalty of its weight, at least 0.
        strong_views: Number of strong views of each unlabeled image, at least 1.
        **kwargs: Other arguments of `FixMatch`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    streams = ("labeled", "unlabeled", "balanced")
    balanced_evaluation = True

    def __init__(
        self,
        num_classes: int,
        *,
        warmup: float = 0.8,
        teacher_steps: int = 5000,
        smallest_share: float = 0.6,
        teacher_lr: float = 0.002,
        teacher_weight_decay: float = 5e-4,
        strong_views: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, strong_views=strong_views, **kwargs)
        check_below_one("warmup", warmup)
        check_count("teacher_steps", teacher_steps, 0)
        check_share("smallest_share", smallest_share)
        self.warmup = warmup
        self.teacher_steps = teacher_steps
        self.smallest_share = smallest_share
        width = self.network.feature_dim
        self.teacher = AdamHead(width, num_classes, teacher_lr, teacher_weight_decay)
        self.network.head = TeacherHead(self.network.head, width, num_classes)
        self.network.head.teacher.load_state_dict(self.teacher.linear.state_dict())

    def setup(self, stage: str) -> None:
        """Refuse a fit without labeled images of a class."""
        super().setup(stage)
        if stage == "fit":
            check_every_class("CoSSL", self.class_counts)

    def steps_of_teacher(self) -> int:
        """Return how many steps the teacher is trained already; negative before it begins."""
        return self.trainer.global_step - int(self.warmup * self.total_steps()) + self.teacher_steps

    def make_views(self, batch: Batch) -> Batch:
        """Make the views of `FixMatch` and, for the teacher, strong views and the share of an image's own features."""
        batch = super().make_views(batch)
        if self.steps_of_teacher() >= 0:
            balanced = batch["balanced"]
            balanced["strong"] = self.strong(balanced["image"])
            drawn, share = to_device(torch.rand(2, len(balanced["target"])), self.class_counts.device)
            share = self.smallest_share + (1 - self.smallest_share) * share
            balanced["share"] = torch.where(drawn < tail_chances(self.class_counts)[balanced["target"]], share, 1.0)
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled, steps = batch["labeled"], batch["unlabeled"], self.steps_of_teacher()
        cast(TeacherHead, self.network.head).began.fill_(steps >= self.teacher_steps)
        loss_teacher = torch.zeros((), device=unlabeled["index"].device)
        with torch.no_grad():
            if steps >= self.teacher_steps:
                weak_logits = self.teacher(self.averaged(self.network.features, unlabeled["weak"]))
            else:
                weak_logits = self.network(unlabeled["weak"]).float()
        if steps >= 0:
            loss_teacher = self.train_teacher(batch)
        logits = self.network(torch.cat([labeled["weak"], *unlabeled["strong"]])).float()
        loss, parts = self.fixmatch_loss(batch, weak_logits, logits)
        self.track(loss=loss, loss_teacher=loss_teacher, **parts)
        return loss

    def train_teacher(self, batch: Batch) -> Tensor:
        """Take a step of the teacher's head, and average it; return its loss `[]`."""
        balanced, strong = batch["balanced"], batch["unlabeled"]["strong"][0]
        images = torch.cat([balanced["strong"], strong[:: len(strong) // len(balanced["target"])]])
        own, others = self.averaged(self.network.features, images).float().chunk(2)
        loss = self.teacher.train_step(enhanced(own, others, balanced["share"]), balanced["target"])
        if self._averaging:
            teacher = cast(TeacherHead, self.network.head).teacher
            average_into([*teacher.parameters()], [*self.teacher.linear.parameters()], self._averaging.decay)
        return loss


def tail_chances(class_counts: Tensor) -> Tensor:
    """Compute the probability `(n_max - n_k) / n_max` that features of each class are enhanced, `float32 [K]`."""
    return 1 - class_counts / class_counts.max()


def enhanced(own: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """Mix features `[B, D]` with those of other images `[B, D]`, by the share `[B]` of the former."""
    return share[:, None] * own + (1 - share[:, None]) * others
