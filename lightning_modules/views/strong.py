"""The strong view: weak view, RandAugment, Cutout."""

from torch import Tensor

from tailmatch.datamodules.arguments import check_share
from tailmatch.lightning_modules.views.base import View
from tailmatch.lightning_modules.views.cutout import Cutout
from tailmatch.lightning_modules.views.randaugment import RandAugment
from tailmatch.lightning_modules.views.weak import WeakView


class StrongView(View):
    """FixMatch's strong augmentation: flip and shift, then RandAugment, then Cutout.

    arXiv 2001.07685, section 2.3; the weak view comes first in the authors' `libml/augment.py` too.

    Args:
        num_ops: Number of RandAugment's operations applied to each sample.
        probability: Probability that each of them is applied: 1 in the paper, 0.5 in the authors' code.
        cutout: Side of Cutout's square as a share of the shorter side of the image; 0 for none.
        weak: View to begin with, such as `RandomResizedCrop`; None is `WeakView()`, flip and shift.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self, num_ops: int = 2, probability: float = 1.0, cutout: float = 0.5, weak: View | None = None
    ) -> None:
        super().__init__()
        check_share("cutout", cutout)
        self.weak: View = weak or WeakView()
        self.randaugment = RandAugment(num_ops, probability)
        self.cutout = Cutout(cutout)

    def adapt(self, horizontal_flip: bool) -> None:
        """Let the weak view flip as the data set says."""
        self.weak.adapt(horizontal_flip)

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8` images of the same shape, or of the weak view's."""
        return self.cutout.augment(self.randaugment.augment(self.weak.augment(images)))
