"""CCL (Zhou et al., NeurIPS 2024, arXiv 2410.06109): contrast with continuous labels."""

from typing import Any

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_below_one, check_count, check_share
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.semi_supervised import shifted
from tailmatch.lightning_modules.losses.continuous_contrast import ContinuousContrast
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.pseudo_labels.running_prior import IntervalPrior, log_shift, soft_counts
from tailmatch.lightning_modules.training.length import check_reached, warn_unless_reached
from tailmatch.lightning_modules.views import SimCLRView, View

FLOOR = 1e-12
"""Added to `prior^tau` before the logarithm, so that a class without images has a finite shift (authors' code)."""


class CCL(FixMatch):
    r"""Two heads with one pseudo-label, and two contrasts of features, all of them balanced by estimated priors.

    With the logits z of the standard head, b of the balanced head, the labeled prior pi, an estimate `pi_u` of that of
    the unlabeled images and one, `pi_c`, of that of the confident pseudo-labels, the number mu of unlabeled images for
    each labeled one, and rho = mu / (1 + mu):

        v = (z(weak) - log((1 - rho) pi + rho pi_c) + (1 + tau / 2) log pi_u + b(weak)) / 2
        q = softmax(v), refined; c = 1[max q >= threshold]; r = 1[logsumexp v >= energy_threshold]
        loss_z = CE(z(labeled)) + max(lambda_u, mu) * mean(c CE(argmax q, z(strong)))
        loss_b = CE(b(labeled) + tau log pi) + max(lambda_u, mu) * mean(c CE(argmax q, b(strong) + tau log pi_c))
        loss = lambda_classes (loss_z + loss_b) + lambda_smoothed L_s + (1 - lambda_classes) L_r

    Contrasts are of projected features. Two views of the labeled images and a center of each class, the projected
    weight of the class in the balanced head, are known. L_s (`smoothed_contrast`) labels strong views by these and by
    each other, and wants the labels of weak views. In L_r (`reliable_contrast`), strong views of the rows with r have
    the label q^4, normalized. Each `every` steps after `warmup_steps`, the sums of q over the rows with c, and over
    those with r that are no labeled images as well, move `pi_c` and `pi_u`, from pi and the uniform prior on.

    The balanced head is `network.head`: it is evaluated, and `LogitAdjustment` is refused. Remedies change q.

    Equations and defaults are those of zhouzihao11/CCL `train.py` and `loss/semiConLoss.py`; its CIFAR-10 scripts have
    other estimates (`experiments/ccl_cifar10.yaml`). Departures: a center has its own class (theirs, each has all
    classes, which makes centers say nothing of one: `center_label` is full of ones); the projections' BatchNorm sees
    the images of all processes, without the labeled weak views, which the contrasts leave out; as in `FixMatch`, weak
    views pass through the network separately.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        tau: Strength of the adjustments, at least 0.
        lambda_classes: Share of both heads' losses, in [0, 1]; the rest is that of L_r.
        lambda_smoothed: Weight of L_s, at least 0.
        energy_threshold: Least logsumexp v, the negative energy, of a row that L_r and `pi_u` use, at least 0. Logits
            grow with the length of a training.
        momentum: Weight of the previous `pi_c`, in [0, 1).
        unlabeled_momentum: Weight of the previous `pi_u`, in [0, 1).
        every: Number of steps between updates of both, at least 1.
        warmup_steps: Number of steps before they are counted, at least 0 and less than all: 6 of the authors' epochs.
        lambda_u: Least weight of the unlabeled losses, at least 0.
        strong_views: Number of strong views of each unlabeled image, at least 1.
        contrast: View of the labeled images for the contrasts; None is `SimCLRView(scale=(0.2, 1), jitter=0.5)`.
        **kwargs: Other arguments of `FixMatch`.

    Raises:
        SettingsError: An argument lies outside its domain, or the network's head has no weight for each class.
    """

    balanced_evaluation = True

    def __init__(
        self,
        num_classes: int,
        *,
        tau: float = 2.0,
        lambda_classes: float = 0.7,
        lambda_smoothed: float = 1.0,
        energy_threshold: float = 8.75,
        momentum: float = 0.5,
        unlabeled_momentum: float = 0.5,
        every: int = 500,
        warmup_steps: int = 3000,
        lambda_u: float = 1.5,
        strong_views: int = 2,
        contrast: View | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, lambda_u=lambda_u, strong_views=strong_views, **kwargs)
        check_at_least("tau", tau, 0)
        check_share("lambda_classes", lambda_classes)
        check_at_least("lambda_smoothed", lambda_smoothed, 0)
        check_at_least("energy_threshold", energy_threshold, 0)
        check_below_one("unlabeled_momentum", unlabeled_momentum)
        check_count("warmup_steps", warmup_steps, 0)
        self.tau, self.energy_threshold, self.warmup_steps = tau, energy_threshold, warmup_steps
        self.lambda_classes, self.lambda_smoothed = lambda_classes, lambda_smoothed
        self.contrast = contrast or SimCLRView(scale=(0.2, 1.0), jitter=0.5)
        width = self.network.feature_dim
        if not isinstance(getattr(self.network.head, "weight", None), Tensor):
            raise SettingsError(
                f"the network's head is a {type(self.network.head).__name__}, and CCL's centers are the weights of a "
                "linear one: end the network in nn.Linear"
            )
        self.standard = nn.Linear(width, num_classes)
        self.contrasts = ContinuousContrast(width)
        self.prior = IntervalPrior(num_classes, momentum, every, start=1)
        self.unlabeled_prior = IntervalPrior(num_classes, unlabeled_momentum, every, start=1)
        self.labeled_in_front = 0  # of the unlabeled set

    def setup(self, stage: str) -> None:
        """Learn which unlabeled images are labeled ones as well; refuse a fit that ends in its warm-up."""
        super().setup(stage)
        if stage == "fit":
            estimate, first = "CCL's estimate of the unlabeled classes", self.warmup_steps + self.prior.every
            check_reached(self.trainer, "warmup_steps", self.warmup_steps, estimate)
            warn_unless_reached(self.trainer, "warmup_steps + every", first, estimate)
            self.labeled_in_front = self.trainer.datamodule.labeled_in_front  # type: ignore[attr-defined]

    def begin_fit(self) -> None:
        """Begin with the prior of the labeled images."""
        super().begin_fit()
        self.prior.begin(self.class_counts)

    def make_views(self, batch: Batch) -> Batch:
        """Make two views of the labeled images for the contrasts, besides the views of `FixMatch`."""
        batch = super().make_views(batch)
        batch["labeled"]["contrast"] = [self.contrast(batch["labeled"]["image"]) for _ in range(2)]
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled, labels = batch["labeled"], batch["unlabeled"], batch["labeled"]["target"]
        prior = self.class_counts / self.class_counts.sum()
        with torch.no_grad():
            weak_features, weak_balanced = self.network.features_and_logits(unlabeled["weak"])
            shift = self.weak_shift(prior, len(unlabeled["weak"]) / len(labels))
            weak = (self.standard(weak_features).float() + shift + weak_balanced.float()) / 2
        views = torch.cat([labeled["weak"], *unlabeled["strong"], *labeled["contrast"]])
        features, balanced = self.network.features_and_logits(views)
        classified = len(views) - 2 * len(labels)
        standard, balanced = self.standard(features[:classified]).float(), balanced[:classified].float()
        with torch.no_grad():
            own = standard[: len(labels)].softmax(dim=1)
            probs, weights = self.pseudo_labels(weak.softmax(dim=1), unlabeled["index"], own)
            reliable = (weak.logsumexp(dim=1) >= self.energy_threshold).float()
        shifts = log_shift(prior, self.tau, FLOOR), log_shift(self.prior.probs, self.tau, FLOOR)
        loss_standard = self.head_loss(standard, labels, probs, weights, self.labeled_shift(), self.unlabeled_shift())
        loss_balanced = self.head_loss(balanced, labels, probs, weights, *shifts)
        pair, strong = features[classified:].float(), features[len(labels) : classified].float()
        views_of_unlabeled = [weak_features.float(), *strong.chunk(self.strong_views)]
        class_weights: Tensor = self.network.get_parameter("head.weight")
        loss_smoothed, loss_reliable = self.contrasts(
            pair.chunk(2), labels, views_of_unlabeled, probs, reliable, class_weights
        )
        loss: Tensor = self.lambda_classes * (loss_standard + loss_balanced) + self.lambda_smoothed * loss_smoothed
        loss = loss + (1 - self.lambda_classes) * loss_reliable
        if self.trainer.global_step >= self.warmup_steps:
            self.prior.update(soft_counts(probs, weights))
            self.unlabeled_prior.update(soft_counts(probs, reliable * (unlabeled["index"] >= self.labeled_in_front)))
        parts = {"loss_standard": loss_standard, "loss_balanced": loss_balanced, "loss_smoothed": loss_smoothed}
        numbers = {"loss_reliable": loss_reliable, "selected": weights.mean(), "reliable": reliable.mean()}
        self.track(loss=loss, **parts, **numbers)
        return loss

    def weak_shift(self, prior: Tensor, mu: float) -> Tensor:
        """Compute the shift `[K]` of the standard head's logits in the pseudo-label, given pi and mu."""
        mixed = (prior + mu * self.prior.probs) / (1 + mu)
        return log_shift(self.unlabeled_prior.probs, 1 + self.tau / 2, FLOOR) - log_shift(mixed, 1, FLOOR)

    def head_loss(
        self, logits: Tensor, labels: Tensor, probs: Tensor, weights: Tensor, *shifts: Tensor | None
    ) -> Tensor:
        """Compute a head's loss `[]` of labels `[B]`, and of pseudo-labels `[U, K]` with their weights `[U]`.

        Logits `[B + S U, K]` are those of the labeled images, then of the S strong views; the shifts, `[K]` or None,
        are added to these two.
        """
        labeled_logits, strong_logits = logits.tensor_split([len(labels)])
        target = torch.cat([probs if self.soft_targets else probs.argmax(dim=1)] * self.strong_views)
        losses = self.cross_entropy(shifted(strong_logits, shifts[1]), target)
        weight = max(self.lambda_u, len(probs) / len(labels))
        loss_unlabeled = weight * (losses * weights.repeat(self.strong_views)).mean()
        return self.labeled_loss(shifted(labeled_logits, shifts[0]), labels) + loss_unlabeled
