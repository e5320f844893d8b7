import re

import numpy as np
import pytest
import torch
from PIL import Image

from tailmatch.lightning_modules.views import RandAugment
from tailmatch.lightning_modules.views.randaugment import GEOMETRIC_POOL, IDENTITY, POOL, Layer, apply_layers

NAMES = [re.sub("[XY]$", lambda axis: f"_{axis[0]}", op.name).lower() for op in POOL]  # as the functions of `ops`


def by_pillow(images, choice, magnitude, pillow):
    results = []
    for image, op, parameter in zip(images.permute(0, 2, 3, 1).numpy(), choice, magnitude, strict=True):
        results.append(np.asarray(pillow[NAMES[op]](Image.fromarray(image), parameter.item())))
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)


def test_two_layers_equal_pillow_with_the_same_draws(batch, pillow):
    view = RandAugment()
    torch.manual_seed(3)
    result = view.augment(batch)

    torch.manual_seed(3)
    expected = batch
    for _ in range(2):
        expected = by_pillow(expected, *view.draw(len(batch)), pillow)
    assert torch.equal(result, expected)


@pytest.mark.parametrize("choice", [[1] * 4, [12] * 4, [IDENTITY] * 4, [9, 0, 13, 5]])
def test_layer_with_empty_groups(choice, batch, pillow):
    choice = torch.tensor(choice)
    magnitude = torch.tensor([0.25, -0.1, 0.3, -0.3], dtype=torch.float64)
    result = apply_layers(batch[:4], [Layer.of(choice, magnitude, 32, 32)])
    assert torch.equal(result, by_pillow(batch[:4], choice, magnitude, pillow))


@pytest.mark.parametrize("size", [0, 1])
def test_small_batches(size, batch):
    assert RandAugment()(batch[:size]).shape == (size, 3, 32, 32)


def test_operations_are_uniform_and_magnitudes_fill_their_range():
    torch.manual_seed(0)
    choice, magnitude = RandAugment().draw(56_000)
    counts = torch.bincount(choice, minlength=len(POOL))
    assert len(POOL) == 14 and len(GEOMETRIC_POOL) == 5
    assert (counts - 4_000).abs().max() < 305  # five standard deviations of about 61
    ranges = {
        "Brightness": (0.05, 0.95),
        "Color": (0.05, 0.95),
        "Contrast": (0.05, 0.95),
        "Sharpness": (0.05, 0.95),
        "Solarize": (0, 256),
        "Rotate": (-30, 30),
        "ShearX": (-0.3, 0.3),
        "ShearY": (-0.3, 0.3),
        "TranslateX": (-0.3, 0.3),
        "TranslateY": (-0.3, 0.3),
    }
    for position, op in enumerate(POOL):
        drawn = magnitude[choice == position]
        if op.name in ranges:
            low, high = ranges[op.name]
            quartiles = torch.quantile(drawn, torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64))
            expected = torch.linspace(low, high, 5, dtype=torch.float64)
            torch.testing.assert_close(quartiles, expected, atol=0.03 * (high - low), rtol=0)
            assert drawn.min() >= low and drawn.max() <= high
        if op.name == "Posterize":
            values, counts = drawn.unique(return_counts=True)
            assert values.tolist() == [4, 5, 6, 7, 8]
            assert (counts - len(drawn) / 5).abs().max() < 130


def test_the_two_operations_of_a_sample_are_independent():
    torch.manual_seed(0)
    view = RandAugment()
    first, second = view.draw(50_000)[0], view.draw(50_000)[0]
    assert (first == second).float().mean() == pytest.approx(1 / 14, abs=0.005)


def test_probability_skips_operations(batch):
    assert torch.equal(RandAugment(probability=0.0).augment(batch), batch)
    torch.manual_seed(0)
    choice, _ = RandAugment(probability=0.5).draw(50_000)
    assert (choice == IDENTITY).float().mean() == pytest.approx(0.5 + 0.5 / 14, abs=0.01)


def test_no_operations(batch):
    assert torch.equal(RandAugment(num_ops=0).augment(batch), batch)


@pytest.mark.parametrize("arguments", [{"num_ops": -1}, {"probability": 1.5}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is {next(iter(arguments.values()))}; it must be"):
        RandAugment(**arguments)
