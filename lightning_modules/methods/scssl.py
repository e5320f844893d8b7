"""SC-SSL (Tian et al., AAAI 2026, arXiv 2511.18773)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_count
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.inference.predict_set import rows_of_set
from tailmatch.lightning_modules.losses.base import check_every_class
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.networks.bias_free_head import BiasFreeHead
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages
from tailmatch.lightning_modules.pseudo_labels.running_prior import log_shift
from tailmatch.lightning_modules.pseudo_labels.sampling_control import SamplingControl
from tailmatch.lightning_modules.training.distributed import sum_over_processes


class SCSSL(FixMatch):
    r"""FixMatch with an output head, which is evaluated, and an expansive head, which accepts more of the rare classes.

    The basic head has FixMatch's loss. The loss of both others, on the same features, with the labeled prior pi and
    `q = softmax(z(weak))` of the head itself, is

        CE(y, z(labeled) + tau log pi) + lambda_heads * mean(1[max q >= rho[argmax q]] * CE(argmax q, z(strong)))

    1. In the first `estimation_epochs`, all thresholds rho are `threshold`. Then the averaged weights predict all
       unlabeled images, and the distribution that is nearest to the class counts gives the first thresholds of the rare
       classes (`pseudo_labels/sampling_control.py`).
    2. In each step, the thresholds of each class whose bias in the output head is above `bias_limit` decrease.
    3. The evaluated logits are those of the output head without its bias. They are balanced.

    Remedies change the basic head's pseudo-labels alone. The source is the paper's text; where it leaves a choice:

    * It has "a few" estimation epochs; 5 of 500 steps are ACR's. Images are counted as they are, not in a weak view.
    * Each head has its own labels, and rows at the threshold count, as in equation 7 (unlike algorithm 1). The weight 2
      is in the text (unlike equation 11).
    * Thresholds have no floor. They reach 0, which accepts all rows, after at most 190 steps. `floor` sets one.
    * Biases have no weight decay, here and in the authors' library (microsoft/Semi-supervised-learning).
    * Weights of the unlabeled loss by an estimated prior have no formula, and are left out. So is the anchor "chaos".

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        tau_output: Strength of the logit adjustment of the output head, at least 0.
        tau_expansive: Strength of the logit adjustment of the expansive head, at least 0.
        lambda_heads: Weight of the unlabeled loss of these two heads, at least 0.
        estimation_epochs: Number of epochs before the unlabeled images are counted, at least 1 and less than all.
        bias_limit: Bias in the output head above which the thresholds of a class decrease, at least 0.
        threshold_step: Decrease of a threshold in a step, at least 0.
        floor: Smallest threshold, in [0, 1], that a decrease leads to.
        **kwargs: Other arguments of `FixMatch`. `threshold` is that of the basic head and of the frequent classes.

    Raises:
        SettingsError: An argument lies outside its domain, or the network's head is not linear with a bias.
    """

    balanced_evaluation = True

    def __init__(
        self,
        num_classes: int,
        *,
        tau_output: float = 2.0,
        tau_expansive: float = 4.0,
        lambda_heads: float = 2.0,
        estimation_epochs: int = 5,
        bias_limit: float = 1.0,
        threshold_step: float = 0.005,
        floor: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_at_least("tau_output", tau_output, 0)
        check_at_least("tau_expansive", tau_expansive, 0)
        check_at_least("lambda_heads", lambda_heads, 0)
        check_count("estimation_epochs", estimation_epochs)
        self.taus = (tau_output, tau_expansive)
        self.lambda_heads = lambda_heads
        self.estimation_epochs = estimation_epochs
        self.control = SamplingControl(num_classes, self.threshold, bias_limit, threshold_step, floor)
        self.network.head = BiasFreeHead(self.network.head)
        self.basic = nn.Linear(self.network.feature_dim, num_classes)
        self.expansive = nn.Linear(self.network.feature_dim, num_classes)
        self._is_counted = False

    def setup(self, stage: str) -> None:
        """Refuse a fit that ends before the unlabeled images are counted, or has no labeled image of a class."""
        super().setup(stage)
        if stage == "fit":
            check_every_class("SCSSL", self.class_counts)
            if self.estimation_epochs >= self.total_epochs():
                raise SettingsError(
                    f"SCSSL would never set its thresholds: estimation_epochs is {self.estimation_epochs} and the "
                    f"training has {self.total_epochs():g} epochs; lower it, or train longer"
                )

    def on_train_start(self) -> None:
        """Note whether the unlabeled images are counted already, as in a resumed run."""
        self._is_counted = bool(self.control.anchor >= 0)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Count the unlabeled images before the first step after the estimation epochs."""
        if not self._is_counted and self.trainer.current_epoch >= self.estimation_epochs:
            self.print(f"SCSSL: {self.control.begin(self.predicted_counts(), self.class_counts)}")
            self._is_counted = True

    def predicted_counts(self) -> Tensor:
        """Count how many unlabeled images are predicted as each class, `int64 [K]`, those of all processes."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        loader = data.evaluation_loader(data.unlabeled)
        counts = torch.zeros(self.num_classes, dtype=torch.long, device=self.device)
        with self.evaluated_weights():
            for logits, _ in rows_of_set(self.trainer, self.network, loader, self.network):
                counts += functional.one_hot(logits.argmax(dim=1), self.num_classes).sum(dim=0)
        return sum_over_processes(counts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with torch.no_grad():
            weak_basic, *weak = self.logits(unlabeled["weak"])
        basic, *logits = self.logits(torch.cat([labeled["weak"], *unlabeled["strong"]]))
        loss, parts = self.fixmatch_loss(batch, weak_basic, basic)
        prior = self.class_counts / self.class_counts.sum()
        for head, name in enumerate(("output", "expansive")):
            labeled_logits, strong_logits = logits[head].tensor_split([len(labeled["weak"])])
            pseudo_label, accepted = accept(weak[head], self.control.thresholds[head])
            labeled_logits = labeled_logits + log_shift(prior, self.taus[head])
            loss_labeled = self.cross_entropy(labeled_logits, labeled["target"]).mean()
            losses = self.cross_entropy(strong_logits, pseudo_label.repeat(self.strong_views))
            loss_unlabeled = (losses * accepted.repeat(self.strong_views)).mean()
            loss = loss + loss_labeled + self.lambda_heads * loss_unlabeled
            parts |= {f"loss_labeled_{name}": loss_labeled, f"loss_unlabeled_{name}": loss_unlabeled}
            parts |= {f"selected_{name}": accepted.mean(), f"threshold_{name}": self.control.thresholds[head].mean()}
        self.control.relax(self.network.get_parameter("head.linear.bias"))
        self.track(loss=loss, **parts)
        return loss

    def logits(self, images: Tensor | TaggedImages) -> list[Tensor]:
        """Compute the logits `float32 [B, K]` of the basic, the output and the expansive head."""
        features, output = self.network.features_and_logits(images)
        return [self.basic(features).float(), output.float(), self.expansive(features).float()]


def accept(logits: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Label rows of logits `[B, K]`; accept (1) those that reach the threshold `[K]` of their label, `float32 [B]`."""
    confidence, label = logits.softmax(dim=1).max(dim=1)
    return label, (confidence >= thresholds[label]).float()
