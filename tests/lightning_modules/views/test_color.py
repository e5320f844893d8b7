import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from tailmatch.lightning_modules.views import ColorJitter, RandomGray, ops
from tailmatch.lightning_modules.views.color import apply_in_order, shift_hue

OPERATIONS = [ops.brightness, ops.contrast, ops.color, shift_hue]  # as ColorJitter's ranges: brightness, contrast, ...
TORCHVISION = [
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
]


def cube():
    """All colors whose channels are of 18 levels from 0 to 255. Uint8 ``[1, 3, 18, 324]``."""
    levels = torch.arange(0, 256, 15, dtype=torch.uint8)
    return torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 18, -1)


def test_hue_equals_torchvision_on_all_colors():
    """One gray level off where float32 falls on the other side of a whole number."""
    shifts = torch.tensor([-0.5, -1 / 3, -0.2, -0.01, 0, 1e-3, 1 / 6, 0.123, 0.25, 0.4999, 0.5])
    result = shift_hue(cube().expand(len(shifts), -1, -1, -1), shifts)
    expected = torch.cat([functional.adjust_hue(cube(), shift) for shift in shifts.tolist()])
    difference = (result.to(torch.int16) - expected.to(torch.int16)).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


def test_hue_equals_the_standard_library():
    colors = cube().flatten(2)[0].T[::37]
    result = shift_hue(colors.T.reshape(1, 3, 1, -1), torch.tensor([0.3])).flatten(2)[0].T
    for color, got in zip(colors.tolist(), result.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
        expected = colorsys.hsv_to_rgb((hue + 0.3) % 1, saturation, value)
        np.testing.assert_allclose(got, 255 * np.array(expected), atol=1)


def test_hue_of_a_third_of_a_turn_swaps_channels_and_of_none_keeps_them():
    images = cube()
    assert torch.equal(shift_hue(images, torch.zeros(1)), images)
    third = (shift_hue(images, torch.full((1,), 1 / 3)).to(torch.int16) - images.roll(1, 1).to(torch.int16)).abs()
    assert third.max() <= 1 and (third > 0).float().mean() < 0.01


@pytest.mark.parametrize("position", range(3))
def test_factors_equal_torchvision_on_pillow_images(position, batch):
    factors = torch.linspace(0, 2, len(batch))
    result = OPERATIONS[position](batch, factors)
    for image, factor, got in zip(batch, factors.tolist(), result, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = np.asarray(TORCHVISION[position](picture, factor))
        np.testing.assert_array_equal(got.permute(1, 2, 0), expected)


def test_factors_are_two_gray_levels_off_torchvision_on_tensors_at_most(batch):
    """Torchvision truncates gray values of tensors, Pillow rounds them; a factor of 2 doubles nothing but these."""
    factors = torch.linspace(0, 2, len(batch))
    for ours, theirs in zip(OPERATIONS[:3], TORCHVISION[:3], strict=True):
        result = ours(batch, factors)
        expected = torch.stack([theirs(image, factor) for image, factor in zip(batch, factors.tolist(), strict=True)])
        assert (result.to(torch.int16) - expected.to(torch.int16)).abs().max() <= 2


def test_each_sample_in_its_own_order(batch):
    view = ColorJitter(0.8, 0.8, 0.8, 0.2)
    torch.manual_seed(0)
    result = view.augment(batch)
    torch.manual_seed(0)
    chosen, order, parameter = view.draw(len(batch))

    assert 0 < chosen.sum() < 64
    assert len(order.unique(dim=0)) > 12
    for i in range(64):
        image = batch[i : i + 1]
        for operation in order[i].tolist() if chosen[i] else []:
            image = OPERATIONS[operation](image, parameter[i : i + 1, operation])
        assert torch.equal(result[i : i + 1], image)


def test_order_where_an_operation_has_no_sample(batch):
    order = torch.tensor([[0, 1], [0, 1]])
    result = apply_in_order(["brightness", "contrast"], batch[:2], order, torch.tensor([[0.5, 1.5], [1.2, 0.3]]))
    expected = ops.contrast(ops.brightness(batch[:2], torch.tensor([0.5, 1.2])), torch.tensor([1.5, 0.3]))
    assert torch.equal(result, expected)


def test_draws_fill_their_ranges():
    torch.manual_seed(0)
    chosen, order, parameter = ColorJitter(0.4, 1.5, 0.8, 0.1).draw(48_000)
    assert chosen.float().mean() == pytest.approx(0.8, abs=0.01)
    quarters = torch.tensor([0, 0.25, 0.5, 0.75, 1])
    for drawn, (low, high) in zip(parameter.unbind(1), [(0.6, 1.4), (0, 2.5), (0.2, 1.8), (-0.1, 0.1)], strict=True):
        expected = low + (high - low) * quarters
        torch.testing.assert_close(drawn.quantile(quarters), expected, rtol=0, atol=0.02 * (high - low))
    counts = (order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(counts) == 24
    assert (counts - 2000).abs().max() < 5 * 44


def test_what_is_zero_is_left_out(batch):
    torch.manual_seed(0)
    result = ColorJitter(0, 0, 0.5, 0, probability=1).augment(batch)
    torch.manual_seed(0)
    _, order, factor = ColorJitter(0, 0, 0.5, 0, probability=1).draw(len(batch))
    assert order.shape == (64, 1)
    assert torch.equal(result, ops.color(batch, factor[:, 0]))
    assert torch.equal(ColorJitter(0, 0, 0, 0, probability=1).augment(batch), batch)
    assert torch.equal(ColorJitter(1, 1, 1, 0.5, probability=0).augment(batch), batch)


def test_gray_equals_pillow_where_chosen(batch):
    torch.manual_seed(0)
    result = RandomGray(0.5).augment(batch)
    gray = torch.stack(
        [torch.from_numpy(np.array(Image.fromarray(i.permute(1, 2, 0).numpy()).convert("L"))) for i in batch]
    )
    is_gray = (result == gray[:, None]).flatten(1).all(1)
    assert 16 < is_gray.sum() < 48
    assert torch.equal(result[~is_gray], batch[~is_gray])
    assert torch.equal(RandomGray(1).augment(batch), gray[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(RandomGray(0).augment(batch), batch)


def test_gray_is_as_frequent_as_asked_for():
    torch.manual_seed(0)
    images = torch.tensor([200, 10, 90], dtype=torch.uint8).view(1, 3, 1, 1).expand(20_000, -1, -1, -1)
    changed = (RandomGray().augment(images) != images).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize(
    ("field", "value"),
    [("brightness", -0.1), ("contrast", -1), ("saturation", -2.0), ("hue", 0.6), ("hue", -0.1), ("probability", 1.1)],
)
def test_bad_arguments(field, value):
    arguments = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1} | {field: value}
    with pytest.raises(ValueError) as error:
        ColorJitter(**arguments)
    assert str(error.value).startswith(f"{field} is {value}; it must be")


def test_bad_probability_of_gray():
    with pytest.raises(ValueError, match=r"probability is 1.5; it must be in \[0, 1\]"):
        RandomGray(1.5)
