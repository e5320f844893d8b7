"""Color jitter and random gray, with separate parameters for each sample."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_at_least, check_between, check_share
from tailmatch.lightning_modules.views import ops
from tailmatch.lightning_modules.views.base import View, all_to_device, apply_where, in_parts

SLICES = ("brightness", "saturation", "contrast", "hue")
"""The operations in the order of their slices of a batch: `ops.ENHANCEMENTS`, and the hue."""


class ColorJitter(View):
    """Random brightness, contrast, saturation and hue of some of the images.

    SimCLR (arXiv 2002.05709, appendix A; `data_util.py`, `color_jitter`) and torchvision's `ColorJitter`: factors are
    uniform in [max(0, 1 - x), 1 + x], the hue shift is uniform in [-x, x] of a turn, and each image goes through the
    operations in a random order of its own. (One order for the whole batch would save a sort, and would make the views
    of a batch more alike than the paper's.) Brightness is a factor, as in SimCLR's `simclrv2`; contrast is about the
    mean gray, as in torchvision, where TensorFlow uses the mean of each channel.

    Args:
        brightness: Range x of the brightness factor, at least 0; 0 leaves brightness unchanged.
        contrast: Range x of the contrast factor, at least 0; 0 leaves contrast unchanged.
        saturation: Range x of the saturation factor, at least 0; 0 leaves saturation unchanged.
        hue: Range x of the hue shift in turns, in [0, 0.5]; 0 leaves the hue unchanged.
        probability: Probability that an image is changed at all; 0.8 in SimCLR and MoCo v2.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self, brightness: float, contrast: float, saturation: float, hue: float, probability: float = 0.8
    ) -> None:
        super().__init__()
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, value in factors.items():
            check_at_least(name, value, 0)
        check_between("hue", hue, 0, 0.5)
        check_share("probability", probability)
        self.probability = probability
        ranges = [(name, max(0.0, 1 - x), 1 + x) for name, x in factors.items()]
        ranges.append(("hue", -hue, hue))
        self.ranges = [entry for entry in ranges if entry[1] < entry[2]]

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8` images of the same shape."""
        chosen, order, parameter = self.draw(len(images))
        jitter = partial(apply_in_order, [name for name, _, _ in self.ranges])
        return apply_where(
            chosen, lambda some, position: in_parts(jitter, some, order[position], parameter[position]), images
        )

    def draw(self, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw on the host the parameters of each sample, for the N operations whose range is not 0.

        Returns:
            Whether to change the sample, `bool [B]`; the order of the operations, `int64 [B, N]`; and the parameter of
            each operation, `float32 [B, N]`, in the order of `ranges`.
        """
        chosen = torch.rand(batch_size, device="cpu") < self.probability
        order = torch.rand((batch_size, len(self.ranges)), device="cpu").argsort(1)
        low, high = torch.tensor([entry[1:] for entry in self.ranges], device="cpu").view(-1, 2).unbind(1)
        return chosen, order, low + (high - low) * torch.rand((batch_size, len(low)), device="cpu")


class RandomGray(View):
    """Grayscale for some of the images: Pillow's `image.convert("L")` in all three channels.

    Args:
        probability: Probability that an image is made gray; 0.2 in SimCLR and MoCo v2.

    Raises:
        SettingsError: `probability` lies outside [0, 1].
    """

    def __init__(self, probability: float = 0.2) -> None:
        super().__init__()
        check_share("probability", probability)
        self.probability = probability

    def augment(self, images: Tensor) -> Tensor:
        """Augment images `uint8 [B, 3, H, W]` to `uint8` images of the same shape."""
        chosen = torch.rand(len(images), device="cpu") < self.probability
        return apply_where(chosen, lambda some, _: ops.luma(some).to(torch.uint8).expand_as(some), images)


def apply_in_order(operations: Sequence[str], images: Tensor, order: Tensor, parameter: Tensor) -> Tensor:
    """Apply all operations to each sample, in the sample's own order.

    In each round, samples are sorted by their operation, so that each operation works on one slice, whose size the host
    knows.

    Args:
        operations: N names of `SLICES`.
        images: Images `uint8 [B, 3, H, W]`.
        order: Permutations of 0..N - 1, `int64 [B, N]`, on the host.
        parameter: Parameter of each operation, `[B, N]`, on the host.
    """
    ranks = torch.tensor([SLICES.index(name) for name in operations], dtype=torch.int64, device="cpu")
    sizes, drawn, back = [], [], torch.arange(len(images), device="cpu")
    for choice in order.unbind(1):
        rank = ranks[choice]
        place = rank.argsort(stable=True)
        sizes.append(torch.bincount(rank, minlength=len(SLICES)).tolist())
        drawn += [back[place], parameter[place, choice[place]]]  # from the order of the round before
        back = place.argsort()
    parameters = iter(all_to_device([*drawn, back], images.device))
    for *enhancements, shifted in sizes:
        images, values = images.index_select(0, next(parameters)), next(parameters)
        some, others = torch.split(images, [len(images) - shifted, shifted])
        first, rest = torch.split(values, [len(some), shifted])
        done = [ops.enhance(some, first, [*enhancements, 0])] if len(some) else []
        done += [shift_hue(others, rest)] if shifted else []
        images = torch.cat(done)
    return images.index_select(0, next(parameters))


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue and keep the largest and the smallest channel of each pixel (value and saturation in HSV).

    Equals `torchvision.transforms.v2.functional.adjust_hue(image, shift)` on a `uint8` tensor up to one gray level.
    Pillow stores the hue in 8 bits, so even a shift of 0 changes its colors.

    Args:
        images: Images `uint8 [B, 3, H, W]`.
        shift: Shifts `float [B]` in turns.
    """
    values = images.to(torch.float32)
    low, high = values.aminmax(dim=1, keepdim=True)
    spread = high - low
    red, green, blue = torch.split(values, 1, 1)
    distance = torch.where(
        high == red,
        green - blue,
        torch.where(high == green, torch.add(blue - red, spread, alpha=2), torch.add(red - green, spread, alpha=4)),
    )
    hue = distance.div_(spread.clamp(min=1)).add_(6 * shift[:, None, None, None])  # in sixths of a turn from red
    away = hue - torch.arange(0, 6, 2, device=images.device).view(3, 1, 1)  # red, green and blue lie at 0, 2 and 4
    away.sub_(away.div(6).round_().mul_(6)).abs_()  # from 0 to 3 on the circle
    # A channel is at its largest within a sixth of a turn from its own color, at its smallest beyond two.
    result = (2 - away).clamp_(0, 1).mul_(spread).add_(low)
    return result.mul_(255.999 / 255).to(torch.uint8)  # torchvision's rounding, `to_dtype` from [0, 1] to uint8
