"""Deterministic views for prediction: mirrored and cropped alike for every image."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional

MOST_CROPS = 5


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize float images `[B, 3, H, W]` to a height and width, bilinearly with antialiasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def crop_corners(height: int, width: int, crops: int, share: float) -> list[tuple[int, int, int, int]]:
    """Return top, left, height and width of crops: the center first, then the corners, top left and bottom right first.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        crops: Number of crops, at most `MOST_CROPS`.
        share: Height and width of a crop as a share of the image's, in (0, 1].
    """
    high, wide = max(1, round(share * height)), max(1, round(share * width))
    down, right = height - high, width - wide
    places = [(down // 2, right // 2), (0, 0), (down, right), (0, right), (down, 0)]
    return [(top, left, high, wide) for top, left in places[:crops]]


def views_for_prediction(images: Tensor, flip: bool, crops: int, share: float) -> Iterator[Tensor]:
    """Yield views of float images `[B, 3, H, W]`, each in the images' size.

    If `crops` is 0, the view is the images themselves, otherwise their crops, resized; with `flip`, each is followed by
    its mirror image. Five crops and their mirror images are those of Krizhevsky et al. 2012 (ImageNet Classification
    with Deep Convolutional Neural Networks, section 4.1).
    """
    height, width = images.shape[-2:]
    boxes = crop_corners(height, width, crops, share) or [(0, 0, height, width)]
    for top, left, high, wide in boxes:
        view = resized(images[..., top : top + high, left : left + wide], (height, width))
        yield view
        if flip:
            yield view.flip(-1)
