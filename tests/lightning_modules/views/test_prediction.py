"""Views for prediction against torchvision's crops, and worked by hand."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from tailmatch.lightning_modules.views.prediction import crop_corners, resized, views_for_prediction


def images(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_corners_by_hand() -> None:
    assert crop_corners(10, 8, 5, 0.5) == [(2, 2, 5, 4), (0, 0, 5, 4), (5, 4, 5, 4), (0, 4, 5, 4), (5, 0, 5, 4)]
    assert crop_corners(256, 256, 1, 224 / 256) == [(16, 16, 224, 224)]
    assert crop_corners(2, 2, 2, 0.1) == [(0, 0, 1, 1), (0, 0, 1, 1)]
    assert crop_corners(10, 8, 0, 0.5) == []


def test_five_crops_and_their_mirror_images_are_torchvisions() -> None:
    whole = images(16, 12)
    # Top left, top right, bottom left, bottom right, middle; then those of the mirrored image.
    straight, mirrored = reference.five_crop(whole, [8, 6]), reference.five_crop(whole.flip(-1), [8, 6])
    places = [4, 0, 3, 1, 2]
    expected = [straight[place] for place in places] + [mirrored[place] for place in [4, 1, 2, 0, 3]]
    views = list(views_for_prediction(whole, flip=True, crops=5, share=0.5))
    assert len(views) == 10
    for view, crop in zip(views[::2] + views[1::2], expected, strict=True):
        torch.testing.assert_close(view, reference.resize(crop, [16, 12], antialias=True))


def test_without_crops_the_image_itself_and_its_mirror_image() -> None:
    whole = images(4, 6)
    [view] = views_for_prediction(whole, flip=False, crops=0, share=0.5)
    assert torch.equal(view, whole)
    same, mirrored = views_for_prediction(whole, flip=True, crops=0, share=0.5)
    assert torch.equal(same, whole) and torch.equal(mirrored[..., 0], whole[..., 5])


@pytest.mark.parametrize("size", [(4, 4), (13, 9), (32, 16)])
def test_resizing_is_torchvisions(size: tuple[int, int]) -> None:
    whole = images(16, 8)
    torch.testing.assert_close(resized(whole, size), reference.resize(whole, list(size), antialias=True))
    assert resized(whole, (16, 8)) is whole
