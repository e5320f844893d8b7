import itertools

import numpy as np
import pytest
import torch

from tailmatch.lightning_modules.views import Cutout
from tailmatch.lightning_modules.views.cutout import cut_out


def by_numpy(image, row, column, size):
    """The authors' loop: clip the square's corners, then fill."""
    image = image.copy()
    top, left = row - size // 2, column - size // 2
    image[:, max(0, top) : min(image.shape[1], top + size), max(0, left) : min(image.shape[2], left + size)] = 127
    return image


@pytest.mark.parametrize("size", [0, 1, 5, 16, 20])
@pytest.mark.parametrize("shape", [(32, 32), (20, 33)])
def test_square_at_corners_edges_and_center(size, shape, batch):
    height, width = shape
    rows, columns = (
        [0, 1, 9, height // 2, height - 2, height - 1],
        [0, 1, 9, width // 2, width - 2, width - 1],
    )
    center = torch.tensor(list(itertools.product(rows, columns)))
    images = torch.cat([batch, batch], 3)[: len(center), :, :height, :width]
    original = images.clone()

    result = cut_out(images, center, size)

    expected = [by_numpy(i, r, c, size) for i, (r, c) in zip(images.numpy(), center.tolist(), strict=True)]
    np.testing.assert_array_equal(result, np.stack(expected))
    assert torch.equal(images, original)


def test_whole_square_where_it_fits_and_a_quarter_in_the_corner():
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    covered = (cut_out(images, torch.tensor([[16, 16], [0, 0]]), 16) == 127).sum((1, 2, 3))
    assert covered.tolist() == [3 * 16 * 16, 3 * 8 * 8]


def test_center_is_uniform_over_the_pixels():
    """With a side of one pixel (fraction 0.13 of 8) the gray pixel is the center."""
    torch.manual_seed(0)
    result = Cutout(0.13).augment(torch.zeros(20_000, 3, 8, 10, dtype=torch.uint8))[:, 0] == 127
    assert (result.sum((1, 2)) == 1).all()
    counts = result.sum(0)
    assert (counts - 250).abs().max() < 80  # five standard deviations of about 16


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_bad_fraction(fraction):
    with pytest.raises(ValueError, match=f"fraction is {fraction}; it must be"):
        Cutout(fraction)
