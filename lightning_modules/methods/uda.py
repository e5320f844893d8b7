"""UDA, unsupervised data augmentation (Xie et al., NeurIPS 2020, arXiv 1904.12848)."""

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from tailmatch.datamodules.arguments import check_choice
from tailmatch.lightning_modules.methods.fixmatch import FixMatch
from tailmatch.lightning_modules.training.distributed import place, sum_over_processes
from tailmatch.lightning_modules.training.length import progress
from tailmatch.lightning_modules.weightings import UnsharpenedThreshold

Annealing = Literal["linear", "exp", "log"]

SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "exp": lambda share: math.exp(5 * (share - 1)),
    "log": lambda share: 1 - math.exp(-5 * share),
}
"""How the limit of training signal annealing rises from 0 to 1 with the share of the training that is done."""


class UDA(FixMatch):
    r"""FixMatch with soft, sharpened targets, and labeled images that are held back until others are learned as well.

    With `p = softmax(z(weak))` and the sharpened, refined `q ~ p^(1/temperature)`:

        loss = CE(labeled that count) + lambda_u * mean(1[max p > threshold] * CE(q, z(strong)))

    The second part differs from the paper's KL(q || softmax(z(strong))) by the entropy of q, which has no gradient.
    With `annealing`, a labeled image counts as long as the probability of its class is at most

        f(t / T) (1 - 1/K) + 1/K        linear: f(s) = s;  exp: e^(5 (s - 1));  log: 1 - e^(-5 s)

    at step t of T, and the mean is over the images that count, of all processes. exp is for few labels, on which the
    network would overfit early; log is for many.

    Equations are those of google-research/uda `image/main.py`, and the defaults those of TorchSSL and
    microsoft/Semi-supervised-learning `uda`. The latter does not sharpen, and holds back images by the probability of
    their most probable class, with a mean over all images. As in `FixMatch`, weak views pass through the network
    separately.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        annealing: Schedule of training signal annealing; None trains on all labeled images at once.
        threshold: Confidence threshold in [0, 1) of the prediction before sharpening.
        temperature: Temperature T, above 0, that sharpens the targets.
        **kwargs: Other arguments of `FixMatch`, but for the weighting and `soft_targets`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        annealing: Annealing | None = None,
        threshold: float = 0.8,
        temperature: float = 0.4,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_classes,
            threshold=threshold,
            temperature=temperature,
            soft_targets=True,
            weighting=UnsharpenedThreshold(),
            **kwargs,
        )
        if annealing is not None:
            check_choice("annealing", annealing, tuple(SCHEDULES))
        self.annealing = annealing

    def labeled_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the mean loss `[]` of the labeled images that count."""
        if self.annealing is None:
            return super().labeled_loss(logits, target)
        limit = annealed(self.annealing, progress(self.trainer), self.num_classes)
        own = logits.detach().softmax(dim=1).gather(1, target[:, None])[:, 0]
        counted = (own <= limit).float()
        count = sum_over_processes(counted.sum()).clamp(min=1) / place()[1]
        return (counted * self.cross_entropy(logits, target)).sum() / count


def annealed(schedule: str, progress: float, num_classes: int) -> float:
    """Compute the largest probability with which a labeled image counts, in [1/K, 1], at a share of the training."""
    return SCHEDULES[schedule](progress) * (1 - 1 / num_classes) + 1 / num_classes
