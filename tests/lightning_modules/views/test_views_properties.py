"""What holds for every view of images of any size: range, type, shape, the seed decides, samples are independent."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tailmatch.lightning_modules.views import (
    ColorJitter,
    Cutout,
    GaussianBlur,
    RandAugment,
    RandomGray,
    RandomResizedCrop,
    SimCLRView,
    StrongView,
    View,
    WeakView,
)
from tailmatch.lightning_modules.views.mixup import interleaved_order, mixup, mixup_partners
from tailmatch.lightning_modules.views.rotation import rotate_quarters

share = st.floats(0, 1)
VIEWS: dict[str, st.SearchStrategy[View]] = {
    "WeakView": st.builds(WeakView, translate=st.floats(0, 0.99), flip=st.booleans()),
    "RandAugment": st.builds(RandAugment, num_ops=st.integers(0, 3), probability=share),
    "Cutout": st.builds(Cutout, fraction=share),
    "StrongView": st.builds(StrongView, num_ops=st.integers(0, 3), probability=share, cutout=share),
    "RandomResizedCrop": st.builds(RandomResizedCrop, scale=st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1))),
    "ColorJitter": st.builds(ColorJitter, *[st.floats(0, 2)] * 3, st.floats(0, 0.5), probability=share),
    "GaussianBlur": st.builds(GaussianBlur, probability=share),
    "RandomGray": st.builds(RandomGray, probability=share),
    "SimCLRView": st.builds(SimCLRView, jitter=share, gray=share, blur=share),
}
seeds = st.integers(0, 2**40)


@st.composite
def image_batches(draw: Callable[[Any], Any]) -> Tensor:
    """Draw `uint8 [B, 3, H, W]` of odd sizes: noise, few gray levels, or one color."""
    shape = (draw(st.integers(1, 5)), 3, draw(st.integers(1, 15)), draw(st.integers(1, 15)))
    generator = torch.Generator().manual_seed(draw(seeds))
    lowest = draw(st.sampled_from([0, 100, 254]))
    highest = draw(st.sampled_from([lowest + 1, lowest + 2, 256]))
    return torch.randint(lowest, min(256, highest), shape, dtype=torch.uint8, generator=generator)


def seen(view: View, images: Tensor, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return view(images)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_images_of_any_size(name: str) -> None:
    @given(VIEWS[name], image_batches(), seeds)
    def holds(view: View, images: Tensor, seed: int) -> None:
        given_images = images.clone()
        result = seen(view, images, seed)
        assert torch.equal(images, given_images)
        assert result.dtype == torch.float32 and result.shape == images.shape
        assert result.min() >= 0 and result.max() <= 1
        assert torch.equal((result * 255).round() / 255, result)
        assert torch.equal(result, seen(view, images, seed))

    holds()


@pytest.mark.parametrize("name", VIEWS)
def test_a_sample_does_not_depend_on_the_pixels_of_the_others(name: str) -> None:
    @given(VIEWS[name], image_batches(), seeds, st.integers(0, 4))
    def holds(view: View, images: Tensor, seed: int, sample: int) -> None:
        sample %= len(images)
        others = 255 - images
        others[sample] = images[sample]
        assert torch.equal(seen(view, images, seed)[sample], seen(view, others, seed)[sample])

    holds()


@given(st.integers(1, 12), image_batches(), seeds)
def test_a_crop_has_its_own_size_whatever_the_images(size: int, images: Tensor, seed: int) -> None:
    assert seen(RandomResizedCrop(size), images, seed).shape == (*images.shape[:2], size, size)


@given(st.integers(1, 4), st.integers(1, 9), st.integers(-9, 9))
def test_turns_are_undone_and_four_are_none(batch: int, side: int, turns: int) -> None:
    images = torch.arange(batch * 3 * side * side).view(batch, 3, side, side)
    number = torch.full((batch,), turns)
    assert torch.equal(rotate_quarters(rotate_quarters(images, number), -number), images)
    assert torch.equal(rotate_quarters(images, number), torch.rot90(images, turns, (2, 3)))


@given(st.integers(1, 40), st.floats(0.01, 10), st.booleans(), seeds)
def test_the_own_image_has_the_larger_weight_and_partners_are_a_permutation(
    size: int, alpha: float, per_image: bool, seed: int
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weight, partner = mixup_partners(size, alpha, per_image)
    assert weight.shape == partner.shape == (size,)
    assert weight.min() >= 0.5 and weight.max() <= 1 and (per_image or len(weight.unique()) == 1)
    assert sorted(partner.tolist()) == list(range(size))


@given(st.integers(1, 20), st.integers(2, 8), seeds)
def test_mixing_keeps_the_sums_of_labels_and_the_range_of_pixels(size: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = 0.5 + 0.5 * torch.rand(size, generator=generator)
    partner = torch.randperm(size, generator=generator)
    labels = (5 * torch.randn(size, classes, generator=generator)).softmax(1)
    mixed = mixup(labels, weight, partner)
    torch.testing.assert_close(mixed.sum(1), torch.ones(size))
    assert mixed.min() >= 0
    images = torch.rand(size, 3, 2, 2, generator=generator)
    result, other = mixup(images, weight, partner), images[partner]
    assert (result >= torch.minimum(images, other) - 1e-6).all() and (
        result <= torch.maximum(images, other) + 1e-6
    ).all()
    assert ((result - images).abs() <= (result - other).abs() + 1e-6).all()  # nearer to the image itself
    assert torch.equal(mixup(images, torch.ones(size), partner), images)


@given(st.integers(1, 12), st.integers(1, 20))
def test_interleaving_is_undone_by_itself_and_shares_the_first_chunk_out(chunks: int, size: int) -> None:
    order = interleaved_order(chunks, size)
    assert torch.equal(order[order], torch.arange(chunks * size))
    first = (order.view(chunks, size) < size).sum(dim=1)
    assert first.sum() == size and first.max() - first.min() <= 1
