import numpy as np
import pytest
import torch

from tailmatch.lightning_modules.views import WeakView
from tailmatch.lightning_modules.views.weak import flip_and_shift


@pytest.mark.parametrize("shape", [(32, 32), (17, 30)])
def test_equals_pad_and_crop(shape, batch):
    height, width = shape
    images = batch[:, :, :height, :width]
    view = WeakView()
    flip, down, right = view.draw(len(images), height, width)

    result = flip_and_shift(images, flip, down, right)

    y, x = int(0.125 * height), int(0.125 * width)
    for i, image in enumerate(images.numpy()):
        image = image[:, :, ::-1] if flip[i] else image
        padded = np.pad(image, ((0, 0), (y, y), (x, x)), mode="reflect")
        top, left = y - down[i], x - right[i]
        np.testing.assert_array_equal(result[i], padded[:, top : top + height, left : left + width])


def test_largest_shifts():
    """Up to the whole size less one, where reflection reaches the far border."""
    image = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4).expand(4, 3, 3, 4)
    down, right = torch.tensor([2, -2, 0, 0]), torch.tensor([0, 0, 3, -3])
    result = flip_and_shift(image, torch.zeros(4, dtype=torch.int64), down, right)[:, 0]
    assert result[0, :, 0].tolist() == [8, 4, 0]
    assert result[1, :, 0].tolist() == [8, 4, 0]
    assert result[2, 0].tolist() == [3, 2, 1, 0]
    assert result[3, 0].tolist() == [3, 2, 1, 0]


def test_draws_are_uniform():
    torch.manual_seed(0)
    flip, down, right = WeakView().draw(45_000, 32, 96)
    assert flip.float().mean() == pytest.approx(0.5, abs=0.012)
    for shift, most in ((down, 4), (right, 12)):
        counts = torch.bincount(shift + most)
        expected = 45_000 / (2 * most + 1)
        assert len(counts) == 2 * most + 1
        assert (counts - expected).abs().max() < 5 * expected**0.5


def flips(view):
    return view.draw(1000, 32, 32)[0].sum().item()


def test_flip_given_is_kept():
    view = WeakView(flip=False)
    view.adapt(horizontal_flip=True)
    assert flips(view) == 0
    view = WeakView(flip=True)
    view.adapt(horizontal_flip=False)
    assert flips(view) > 0


def test_flip_left_open_follows_the_data():
    view = WeakView()
    assert flips(view) > 0
    view.adapt(horizontal_flip=False)
    assert flips(view) == 0
    view.adapt(horizontal_flip=True)
    assert flips(view) > 0


def test_without_flip_and_shift_only_the_scale_changes(batch):
    result = WeakView(translate=0, flip=False)(batch)
    assert torch.equal(result, batch.float() / 255)


@pytest.mark.parametrize("translate", [-0.1, 1.0])
def test_bad_translate(translate):
    with pytest.raises(ValueError, match=f"translate is {translate}; it must be"):
        WeakView(translate)
