"""SimCLR's view: random resized crop, color jitter, gray, blur."""

from torch import Tensor

from tailmatch.datamodules.arguments import check_between, check_share
from tailmatch.lightning_modules.views.base import View
from tailmatch.lightning_modules.views.blur import GaussianBlur
from tailmatch.lightning_modules.views.color import ColorJitter, RandomGray
from tailmatch.lightning_modules.views.crop import RandomResizedCrop

MOST_JITTER = 2.5  # the hue then moves by up to half a turn


class SimCLRView(View):
    """SimCLR's augmentation: random resized crop and flip, color jitter, gray, Gaussian blur.

    arXiv 2002.05709, appendix A; google-research/simclr `data_util.py`. The defaults are those for ImageNet; for CIFAR
    the paper has `jitter=0.5, blur=0` (appendix B.9). MoCo v2 is `scale=(0.2, 1), jitter=0.5` (arXiv 2003.04297;
    facebookresearch/moco `main_moco.py`). `jitter=0, gray=0, blur=0` is a weak view, the same as `RandomResizedCrop`.

    Args:
        size: Side of the views in pixels; None keeps height and width of the images.
        scale: Smallest and largest area of a crop as a share of the image's, in (0, 1].
        jitter: Strength s of the color jitter, in [0, 2.5]: its ranges are 0.8 s for brightness, contrast and
            saturation and 0.2 s for hue, in 80 % of the images.
        gray: Probability that an image is made gray.
        blur: Probability that an image is blurred.
        flip: Whether half of the images are flipped left to right. None flips unless the data set says that mirroring
            changes the label, as for digits.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        size: int | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        jitter: float = 1.0,
        gray: float = 0.2,
        blur: float = 0.5,
        flip: bool | None = None,
    ) -> None:
        super().__init__()
        check_between("jitter", jitter, 0, MOST_JITTER)
        check_share("gray", gray)
        check_share("blur", blur)
        self.crop = RandomResizedCrop(size, scale, flip=flip)
        self.jitter = ColorJitter(0.8 * jitter, 0.8 * jitter, 0.8 * jitter, 0.2 * jitter)
        self.gray = RandomGray(gray)
        self.blur = GaussianBlur(blur)

    def adapt(self, horizontal_flip: bool) -> None:
        """Let the crop flip as the data set says."""
        self.crop.adapt(horizontal_flip)

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8 [B, 3, size, size]`."""
        for view in (self.crop, self.jitter, self.gray, self.blur):
            images = view.augment(images)
        return images
