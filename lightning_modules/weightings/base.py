"""The base of weightings: how much each pseudo-label of `FixMatch` counts in the loss."""

from abc import abstractmethod

from pytorch_lightning import Trainer
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.description import Described

THRESHOLD = 0.95
"""The threshold of FixMatch (arXiv 2001.07685, table 4), which methods have by default."""


class Weighting(Described, nn.Module):
    """The weights of pseudo-labels in the loss, in the place of a fixed threshold: `FixMatch(weighting=...)`.

    What it learns during a training is in its buffers. The method's checkpoints contain these, and all processes have
    the same numbers. One that also has `refine` is a refiner of the method, before sharpening.
    """

    needs_threshold: bool = True
    """Whether the method's `threshold` has a meaning for it; another than the default is refused otherwise."""

    def prepare(self, num_classes: int, threshold: float) -> None:
        """Make the buffers; a method calls this when it is made, with its number of classes K and its threshold.

        Raises:
            SettingsError: The threshold is neither the default nor 0, which is none, and would not be used.
        """
        if not self.needs_threshold and threshold not in (0, THRESHOLD):
            raise SettingsError(f"threshold is {threshold}, and {type(self).__name__} uses none: leave one of them out")
        self.num_classes = num_classes
        self.threshold = threshold

    def check_length(self, trainer: Trainer) -> None:
        """Warn of a training in which the weighting would not learn anything; the default has no such training."""

    def adapt(self, images: int, class_counts: Tensor) -> None:
        """Take the number of unlabeled images and the labeled class counts `[K]`, in the set-up of each fit."""

    @abstractmethod
    def forward(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """Compute the weights of a step, and update the state; see `SemiSupervisedClassifier.weigh`."""
