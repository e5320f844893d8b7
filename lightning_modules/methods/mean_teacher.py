"""Mean Teacher (Tarvainen and Valpola, NeurIPS 2017, arXiv 1703.01780)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_share
from tailmatch.lightning_modules.bases.averaged_teacher import AveragedTeacher
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import SemiSupervisedClassifier, shifted
from tailmatch.lightning_modules.training.length import progress
from tailmatch.lightning_modules.views import View, WeakView


class MeanTeacher(AveragedTeacher, SemiSupervisedClassifier):
    r"""Consistency with the averaged network: its prediction on a weak view is the target on another weak view.

    With the refined `q = softmax(teacher(view_2))` of the averaged network, `p = softmax(logits(view_1))`, and r, which
    rises linearly from 0 to 1 over the first `rampup` of the training:

        loss = CE(labeled) + r * lambda_u * mean over images and classes of (p - q)^2

    The loss and its defaults are those of the long-tailed comparisons in ytaek-oh/daso `lib/algorithm/mean_teacher.py`
    and of TorchSSL `models/meanteacher`. CuriousAI/mean-teacher `pytorch/main.py` has labeled images in the second term
    too (here: the data module's `include_labeled_in_unlabeled`), a weight of 100 at the end of an exponential ramp, and
    a shorter average in its first steps. As in all of them, the teacher's BatchNorm normalizes by the batch. In
    microsoft/Semi-supervised-learning, the student's logits are the teacher's, so that the second term is constant.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        lambda_u: Weight of the unlabeled loss after its rise, at least 0.
        rampup: Share of the training, in [0, 1], in which the weight of the unlabeled loss rises.
        weak: Weak view of labeled and unlabeled images; None is `WeakView()`.
        **kwargs: Other arguments of `SemiSupervisedClassifier`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self, num_classes: int, *, lambda_u: float = 50.0, rampup: float = 0.4, weak: View | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_at_least("lambda_u", lambda_u, 0)
        check_share("rampup", rampup)
        self.lambda_u = lambda_u
        self.rampup = rampup
        self.weak = weak or WeakView()

    def make_views(self, batch: Batch) -> Batch:
        """Make a weak view of each labeled image, and two of each unlabeled image."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        labeled["weak"] = self.weak(labeled["image"])
        unlabeled["weak"] = [self.weak(unlabeled["image"]) for _ in range(2)]
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        first, second = unlabeled["weak"]
        logits = self.network(torch.cat([labeled["weak"], first])).float()
        labeled_logits, student_logits = logits.tensor_split([len(labeled["weak"])])
        with torch.no_grad():
            teacher_probs = self.averaged(self.network, second, in_training_mode=True).float().softmax(dim=1)
            target, weights = self.pseudo_labels(teacher_probs, unlabeled["index"], labeled_logits.softmax(dim=1))
        labeled_logits = shifted(labeled_logits, self.labeled_shift())
        student_probs = shifted(student_logits, self.unlabeled_shift()).softmax(dim=1)
        loss_labeled = functional.cross_entropy(labeled_logits, labeled["target"])
        loss_unlabeled = (weights * (student_probs - target).square().mean(dim=1)).mean()
        loss = loss_labeled + self.ramp() * self.lambda_u * loss_unlabeled
        confidence = target.amax(dim=1).mean()
        self.track(loss=loss, loss_labeled=loss_labeled, loss_unlabeled=loss_unlabeled, confidence=confidence)
        return loss

    def ramp(self) -> float:
        """Return the factor in [0, 1] of the unlabeled loss at the present step."""
        return min(1.0, progress(self.trainer) / self.rampup) if self.rampup else 1.0
