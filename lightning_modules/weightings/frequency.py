"""The class weights of SAW, smoothed adaptive weighting (Lai et al., ICML 2022)."""

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from tailmatch.lightning_modules.pseudo_labels.label_memory import Interval, LabelMemory
from tailmatch.lightning_modules.training.length import warn_unless_reached
from tailmatch.lightning_modules.weightings.base import Weighting


class FrequencyWeights(Weighting):
    r"""SAW: pseudo-labels that reach the threshold count by the inverse effective number of those of their class.

    A confident pseudo-label of class c has the weight w_c. All w are 1 at first; after every `every` steps they follow
    from the numbers n_c of unlabeled images whose newest prediction is c, at least 1 each:

        N = mean n        beta = (N - 1) / N        w_c ~ (1 - beta) / (1 - beta^n_c), with mean 1

    Equations are those of ZJUJeffLai/SAW_SSL `classWeights.py`, scaled to mean 1 as by USB (an option of the former;
    microsoft/Semi-supervised-learning `imb_algorithms/saw`). As by the former, predictions are those of the steps; the
    latter predicts all images after an epoch. Images without a prediction do not count; the authors' begin as class 0.

    Args:
        every: Number of steps between changes of the weights, at least 1; the authors' epoch has 500.

    Raises:
        SettingsError: `every` is less than 1.
    """

    class_weights: Tensor

    def __init__(self, every: int = 500) -> None:
        super().__init__()
        self.interval = Interval(every)
        self.memory = LabelMemory()

    def prepare(self, num_classes: int, threshold: float) -> None:
        """See `Weighting.prepare`."""
        super().prepare(num_classes, threshold)
        self.register_buffer("class_weights", torch.ones(num_classes))

    def check_length(self, trainer: Trainer) -> None:
        """See `Weighting.check_length`."""
        warn_unless_reached(trainer, "every", self.interval.every, "the weights of pseudo-labels")

    def adapt(self, images: int, class_counts: Tensor) -> None:
        """See `Weighting.adapt`."""
        self.memory.adapt(images)

    def forward(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """See `Weighting.forward`."""
        confidence, label = refined.max(dim=1)
        weights = (confidence >= self.threshold) * self.class_weights[label]
        self.memory.write(index, label, torch.ones_like(label, dtype=torch.bool))
        if self.interval.tick():
            self.class_weights.copy_(inverse_effective_numbers(self.memory.counts(self.num_classes)[1:]))
        return weights


def inverse_effective_numbers(counts: Tensor) -> Tensor:
    """Compute weights `float32 [K]` of mean 1 in proportion to `(1 - beta) / (1 - beta^n_k)`, `beta = 1 - 1 / mean n`.

    Args:
        counts: Number of images of each class, `[K]`; one of 0 counts as 1.
    """
    numbers = counts.double().clamp(min=1)
    weights = -1 / torch.expm1(numbers * torch.log1p(-1 / numbers.mean()))
    return (weights / weights.mean()).float()
