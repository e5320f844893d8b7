"""Gaussian blur, each sample with its own width."""

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_share
from tailmatch.lightning_modules.views.base import View, apply_where
from tailmatch.lightning_modules.views.resample import Taps, fixed_point, resample
from tailmatch.lightning_modules.views.weak import reflect


class GaussianBlur(View):
    """Blurs some of the images with a Gaussian over a tenth of their shorter side.

    SimCLR (arXiv:2002.05709, appendix A; ``data_util.py``, ``gaussian_blur``): kernel of 2 (side // 20) + 1
    pixels. Ours has three at least, so that small images are blurred too, and mirrors at the border, as
    torchvision does, where SimCLR's code blends with black. MoCo v2 has the same sigma and probability; its code
    takes Pillow's ``GaussianBlur``, which stands for the Gaussian by three box filters.

    Args:
        probability: with which an image is blurred; SimCLR and MoCo v2 have 0.5, SimCLR on CIFAR 0.
        sigma: least and largest standard deviation in pixels, drawn uniformly; SimCLR's.
    """

    def __init__(self, probability: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)) -> None:
        super().__init__()
        check_share("probability", probability)
        if not 0 < sigma[0] <= sigma[1]:
            raise SettingsError(f"sigma is {sigma}; it must be two numbers above 0 that rise")
        self.probability = probability
        self.sigma = sigma

    def augment(self, images: Tensor) -> Tensor:
        """Augments uint8 images ``[B, 3, H, W]`` to uint8 images of the same shape."""
        chosen, sigma = self.draw(len(images))
        radius = max(1, min(images.shape[2:]) // 20)
        return apply_where(chosen, lambda some, position: gaussian_blur(some, sigma[position], radius), images)

    def draw(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Draws on the host, for each sample, whether to blur, bool ``[B]``, and sigma, float64 ``[B]``."""
        chosen = torch.rand(batch_size, device="cpu") < self.probability
        uniform = torch.rand(batch_size, dtype=torch.float64, device="cpu")
        return chosen, self.sigma[0] + (self.sigma[1] - self.sigma[0]) * uniform


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blurs each image, mirrored at the border pixel.

    ``torchvision.transforms.v2.functional.gaussian_blur(image, 2 * radius + 1, sigma)`` on a uint8 tensor, but
    for one gray level here and there: :func:`resample` rounds between columns and rows.

    Args:
        images: uint8 ``[B, C, H, W]``.
        sigma: float64 ``[B]`` in pixels, above 0, on the host.
        radius: less than the height and the width.
    """
    return resample(images, *(gaussian_taps(sigma, radius, side) for side in images.shape[2:]))


def gaussian_taps(sigma: Tensor, radius: int, size: int) -> Taps:
    """Weighs the pixel at distance d with exp(-d^2 / (2 sigma^2)), over the sum of these weights, d <= radius.

    Args:
        sigma: float64 ``[B]``, on the host.
        radius: K is 2 radius + 1.
        size: N, as many positions as come in.
    """
    distance = torch.arange(-radius, radius + 1, device="cpu")
    weight = torch.softmax(-0.5 * (distance / sigma[:, None]).square(), 1)[:, None].expand(-1, size, -1)
    index = reflect(torch.arange(size, device="cpu")[:, None] + distance, size).expand_as(weight)
    return Taps(index.to(torch.int32), fixed_point(weight))
