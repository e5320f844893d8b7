"""Gaussian blur, with a separate width for each sample."""

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_each, check_positive, check_share
from tailmatch.lightning_modules.views.base import View, apply_where
from tailmatch.lightning_modules.views.resample import Taps, fixed_point, resample
from tailmatch.lightning_modules.views.weak import reflect


class GaussianBlur(View):
    """Gaussian blur of some of the images, with a kernel of about a tenth of their shorter side.

    SimCLR (arXiv 2002.05709, appendix A; `data_util.py`, `gaussian_blur`): kernel of 2 (side // 20) + 1 pixels. This
    one has at least three, so that small images are blurred too, and mirrors at the border, as torchvision does, where
    SimCLR's code blends with black. MoCo v2 has the same sigma and probability; its code uses Pillow's `GaussianBlur`,
    which approximates the Gaussian by three box filters.

    Args:
        probability: Probability that an image is blurred: 0.5 in SimCLR and MoCo v2, 0 in SimCLR on CIFAR.
        sigma: Smallest and largest standard deviation in pixels, between which it is drawn uniformly; SimCLR's by
            default.

    Raises:
        SettingsError: `probability` lies outside [0, 1], or `sigma` is not a rising range above 0.
    """

    def __init__(self, probability: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)) -> None:
        super().__init__()
        check_share("probability", probability)
        check_each("sigma", sigma, check_positive, length=2)
        if sigma[0] > sigma[1]:
            raise SettingsError(f"sigma is {sigma}; its first number must not exceed the second")
        self.probability = probability
        self.sigma = sigma

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8` images of the same shape."""
        chosen, sigma = self.draw(len(images))
        radius = max(1, min(images.shape[2:]) // 20)
        return apply_where(chosen, lambda some, position: gaussian_blur(some, sigma[position], radius), images)

    def draw(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Draw on the host, for each sample, whether to blur it, `bool [B]`, and sigma, `float64 [B]`."""
        chosen = torch.rand(batch_size, device="cpu") < self.probability
        uniform = torch.rand(batch_size, dtype=torch.float64, device="cpu")
        return chosen, self.sigma[0] + (self.sigma[1] - self.sigma[0]) * uniform


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each image, mirrored at the border pixel.

    Equals `torchvision.transforms.v2.functional.gaussian_blur(image, 2 * radius + 1, sigma)` on a `uint8` tensor up to
    one gray level, since `resample` rounds between columns and rows.

    Args:
        images: Images `uint8 [B, C, H, W]`.
        sigma: Standard deviations `float64 [B]` in pixels, above 0, on the host.
        radius: Radius of the kernel in pixels; along a side that is not longer, one pixel less than that.
    """
    return resample(images, *(gaussian_taps(sigma, min(radius, side - 1), side) for side in images.shape[2:]))


def gaussian_taps(sigma: Tensor, radius: int, size: int) -> Taps:
    """Compute the weights of a Gaussian kernel at every position of an axis.

    The pixel at distance d <= radius has weight exp(-d^2 / (2 sigma^2)), divided by the sum of these weights.

    Args:
        sigma: Standard deviations `float64 [B]` in pixels, on the host.
        radius: Radius of the kernel; K is 2 radius + 1.
        size: Number N of positions, in the input as in the output.
    """
    distance = torch.arange(-radius, radius + 1, device="cpu")
    weight = torch.softmax(-0.5 * (distance / sigma[:, None]).square(), 1)[:, None].expand(-1, size, -1)
    index = reflect(torch.arange(size, device="cpu")[:, None] + distance, size).expand_as(weight)
    return Taps(index.to(torch.int32), fixed_point(weight))
