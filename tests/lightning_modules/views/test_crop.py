import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn import functional

from tailmatch.lightning_modules.views import RandomResizedCrop
from tailmatch.lightning_modules.views.crop import central_box, draw_box, resized_crop

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def photos(count, height, width):
    parts = [load_sample_images().images[i % 2][7 * i : 7 * i + height, 9 * i : 9 * i + width] for i in range(count)]
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2)


def by_torch(images, box, flip, size):
    """With torch's kernel for uint8, which torchvision's `resized_crop` calls (0.21 not on a CPU with AVX512)."""
    results = []
    for image, (top, left, height, width), mirror in zip(images, box.T.tolist(), flip.tolist(), strict=True):
        part = image[None, :, top : top + height, left : left + width]
        result = functional.interpolate(part, size, mode="bilinear", antialias=True)[0]
        results.append(result.flip(-1) if mirror else result)
    return torch.stack(results)


def assert_close_levels(result, expected, share):
    """At most one gray level apart, and apart in at most this share of the values."""
    difference = (result.to(torch.int16) - expected.to(torch.int16)).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= share


@pytest.mark.parametrize(
    ("source", "size"),
    [((32, 32), (32, 32)), ((48, 40), (36, 36)), ((33, 47), (20, 64)), ((60, 90), (30, 30)), ((20, 20), (50, 50))],
)
def test_equals_torch(source, size):
    """Boxes up to three times as large as the view, down to single pixels."""
    images = photos(24, *source)
    torch.manual_seed(0)
    box, flip = RandomResizedCrop(scale=(0.01, 1.0), ratio=(0.25, 4.0)).draw(20, *source)
    corners = [[0, 0, 1, 1], [0, 0, *source], [source[0] - 1, 0, 1, source[1]], [0, source[1] - 1, source[0], 1]]
    box = torch.cat([box, torch.tensor(corners).T], 1)
    flip = torch.cat([flip, torch.tensor([False, True, True, False])])

    result = resized_crop(images, box, flip, *size)

    assert result.dtype == torch.uint8 and result.is_contiguous()
    assert torch.equal(result, by_torch(images, box, flip, size))


def test_is_one_gray_level_off_pillow_at_most():
    """Also where a box is ten times as large as the view."""
    images = photos(16, 80, 80)
    torch.manual_seed(1)
    box, _ = RandomResizedCrop().draw(16, 80, 80)
    for size in (8, 24, 80, 100):
        result = resized_crop(images, box, torch.zeros(16, dtype=torch.bool), size, size)
        expected = []
        for image, (top, left, height, width) in zip(images.permute(0, 2, 3, 1).numpy(), box.T.tolist(), strict=True):
            part = Image.fromarray(np.ascontiguousarray(image[top : top + height, left : left + width]))
            expected.append(np.asarray(part.resize((size, size), Image.Resampling.BILINEAR)))
        assert_close_levels(result, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2), 0.02)


def test_flip_mirrors_the_view(batch):
    box = draw_box(64, 32, 32, SCALE, RATIO)
    upright = resized_crop(batch, box, torch.zeros(64, dtype=torch.bool), 24, 20)
    mirrored = resized_crop(batch, box, torch.ones(64, dtype=torch.bool), 24, 20)
    assert torch.equal(mirrored, upright.flip(3))


@pytest.mark.parametrize("shape", [(224, 224), (200, 300)])
def test_boxes_lie_inside_and_keep_area_and_ratio(shape):
    height, width = shape
    torch.manual_seed(0)
    top, left, box_height, box_width = draw_box(20_000, height, width, (0.2, 0.7), (0.5, 2.0))
    assert (top >= 0).all() and (left >= 0).all() and (box_height > 0).all() and (box_width > 0).all()
    assert (top + box_height <= height).all() and (left + box_width <= width).all()
    # Height and width are rounded by half a pixel at most.
    assert ((box_height - 0.5) * (box_width - 0.5) <= 0.7 * height * width).all()
    assert ((box_height + 0.5) * (box_width + 0.5) >= 0.2 * height * width).all()
    assert ((box_width - 0.5) / (box_height + 0.5) <= 2).all() and ((box_width + 0.5) / (box_height - 0.5) >= 0.5).all()


def test_area_and_ratio_are_uniform_where_all_boxes_fit():
    """Area uniform, logarithm of the ratio uniform, place uniform over all that fit."""
    torch.manual_seed(0)
    top, left, height, width = draw_box(40_000, 1000, 1000, (0.1, 0.5), (0.5, 2.0)).to(torch.float64)
    quarters = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    area, shape = height * width / 1e6, (width / height).log2()
    torch.testing.assert_close(area.quantile(quarters), 0.1 + 0.4 * quarters, rtol=0, atol=0.005)
    torch.testing.assert_close(shape.quantile(quarters), 2 * quarters - 1, rtol=0, atol=0.025)
    for start, side in ((top, height), (left, width)):
        place = (start + 0.5) / (1000 - side + 1)
        torch.testing.assert_close(place.quantile(quarters), quarters, rtol=0, atol=0.012)


def test_distribution_equals_torchvisions_where_candidates_are_refused():
    from torchvision.transforms.v2 import RandomResizedCrop as Reference

    torch.manual_seed(0)
    ours = draw_box(20_000, 30, 50, (0.3, 1.0), (0.75, 3.0))
    reference = Reference(30, (0.3, 1.0), (0.75, 3.0))
    image = torch.zeros(3, 30, 50)
    theirs = [reference.make_params([image]) for _ in range(4000)]
    for row, name in enumerate(("top", "left", "height", "width")):
        expected = torch.tensor([float(parameters[name]) for parameters in theirs])
        spread = expected.std() * (1 / len(expected) + 1 / ours.shape[1]) ** 0.5
        assert (ours[row].float().mean() - expected.mean()).abs() < 4 * spread, name


@pytest.mark.parametrize(
    ("shape", "ratio", "expected"),
    [
        ((10, 100), (0.5, 2.0), (0, 40, 10, 20)),  # too wide: twice the height
        ((100, 10), (0.5, 2.0), (40, 0, 20, 10)),  # too high: twice the width
        ((30, 40), (0.5, 2.0), (0, 0, 30, 40)),
        ((1, 8), (0.25, 0.3), (0, 3, 1, 1)),
    ],
)
def test_box_in_the_middle_when_none_fits(shape, ratio, expected):
    assert central_box(*shape, ratio) == expected
    height, width = shape
    if height * width > 8 and not ratio[0] <= width / height <= ratio[1]:
        box = draw_box(3, height, width, (1.0, 1.0), ratio)  # the whole area never fits
        assert box.T.tolist() == [list(expected)] * 3


def test_whole_image_of_the_same_size_stays(batch):
    assert torch.equal(RandomResizedCrop(scale=(1, 1), ratio=(1, 1), flip=False).augment(batch), batch)


def test_size_of_the_view(batch):
    assert RandomResizedCrop(24)(batch).shape == (64, 3, 24, 24)
    assert RandomResizedCrop()(batch[:, :, :20]).shape == (64, 3, 20, 32)
    assert RandomResizedCrop(24)(batch[:0]).shape == (0, 3, 24, 24)


def flips(view):
    return view.draw(1000, 32, 32)[1].sum().item()


def test_flips_half_as_the_data_says():
    torch.manual_seed(0)
    view = RandomResizedCrop()
    assert flips(view) == pytest.approx(500, abs=5 * math.sqrt(250))
    view.adapt(horizontal_flip=False)
    assert flips(view) == 0
    view = RandomResizedCrop(flip=True)
    view.adapt(horizontal_flip=False)
    assert flips(view) > 0
    view = RandomResizedCrop(flip=False)
    view.adapt(horizontal_flip=True)
    assert flips(view) == 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 0, "size is 0; it must be at least 1"),
        ("scale", (0.0, 1.0), "scale[0] is 0.0; it must be in (0, 1]"),
        ("scale", (0.5, 0.2), "scale is (0.5, 0.2); its first number must not exceed the second"),
        ("scale", (0.5, 1.2), "scale[1] is 1.2; it must be in (0, 1]"),
        ("ratio", (0.0, 1.0), "ratio[0] is 0.0; it must be above 0"),
        ("ratio", (2.0, 0.5), "ratio is (2.0, 0.5); its first number must not exceed the second"),
    ],
)
def test_bad_arguments(field, value, message):
    with pytest.raises(ValueError) as error:
        RandomResizedCrop(**{field: value})
    assert str(error.value) == message


def test_flips_upside_down_half_of_the_images_if_asked():
    images = photos(24, 20, 24)
    torch.manual_seed(3)
    box, flip = RandomResizedCrop().draw(24, 20, 24)
    upside_down = torch.arange(24) % 2 == 0
    result = resized_crop(images, box, flip, 20, 24, upside_down)
    expected = by_torch(images, box, flip, (20, 24))
    assert torch.equal(result, torch.where(upside_down[:, None, None, None], expected.flip(-2), expected))

    torch.manual_seed(4)
    plain = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.2, 1.2), flip=False)(images)
    torch.manual_seed(4)
    turned = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.2, 1.2), flip=False, vertical_flip=True)(images)
    is_turned = (turned == plain.flip(-2)).flatten(1).all(1)
    assert ((turned == plain).flatten(1).all(1) != is_turned).all()
    assert 4 < int(is_turned.sum()) < 20
