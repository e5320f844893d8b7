"""SAW, smoothed adaptive weighting (Lai et al., ICML 2022)."""

from typing import Any

from torch import Tensor

from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.weightings.frequency import FrequencyWeights, inverse_effective_numbers


class SAW(FixMatch):
    r"""FixMatch with class weights in both losses: by labeled counts, and by the counts of pseudo-labels.

    With the weights v of the labeled class counts, and w of the unlabeled images' predictions (`FrequencyWeights`):

        loss = mean(v_y CE(labeled, y)) + lambda_u * mean(1[max q >= threshold] * w_c CE(c, z(strong))), c = argmax q

    Means are over all images. Both v and w are inverse effective numbers of mean 1, whose beta follows from the mean
    count, so that no strength is to be chosen. It assumes that the counts of pseudo-labels are near those of the
    classes. Source and departures: see `FrequencyWeights`.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        every: Number of steps between changes of w, at least 1; the authors' epoch has 500.
        **kwargs: Other arguments of `FixMatch`, but for the weighting.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(self, num_classes: int, *, every: int = 500, **kwargs: Any) -> None:
        super().__init__(num_classes, weighting=FrequencyWeights(every), **kwargs)

    def labeled_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the mean loss `[]` of labeled images, each times the weight of its class."""
        weights = inverse_effective_numbers(self.class_counts)
        return (weights[target] * self.cross_entropy(logits, target)).mean()
