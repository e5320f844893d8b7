"""The confidence mask of UDA (Xie et al., NeurIPS 2020, arXiv 1904.12848)."""

from torch import Tensor

from tailmatch.datamodules.arguments import check_below_one
from tailmatch.lightning_modules.weightings.base import Weighting


class UnsharpenedThreshold(Weighting):
    r"""UDA: a pseudo-label counts if the prediction before sharpening is confident, `max p > threshold`.

    FixMatch's own rule compares the sharpened, refined pseudo-label. Here p is the prediction as the network makes it:
    remedies change which label is learned, and not whether. It has no state. `UDA` has this weighting. The inequality
    is strict, as in google-research/uda `image/main.py`.
    """

    def prepare(self, num_classes: int, threshold: float) -> None:
        """See `Weighting.prepare`. A threshold of 1, which no prediction is above, is refused."""
        super().prepare(num_classes, threshold)
        check_below_one("threshold", threshold)

    def forward(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """See `Weighting.forward`."""
        return (probs.amax(dim=1) > self.threshold).float()
