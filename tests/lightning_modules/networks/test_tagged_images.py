"""Tagged images: the same rows and the same mixture of images and tags, and nothing else."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules.networks.tagged_images import TaggedImages, untagged
from tailmatch.lightning_modules.views.mixup import mixup

IMAGES = torch.arange(4 * 3 * 2 * 2, dtype=torch.float32).view(4, 3, 2, 2)
TAGS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.25, 0.75]]).view(4, 2, 1, 1)
TAGGED = TaggedImages(IMAGES, TAGS)


def assert_parts(found: TaggedImages, images: Tensor, tags: Tensor) -> None:
    assert torch.equal(found.images, images) and torch.equal(found.tags, tags)


def test_rows_of_both() -> None:
    rows = torch.tensor([2, 0, 0])
    assert_parts(TAGGED[rows], IMAGES[rows], TAGS[rows])
    assert_parts(TAGGED[1:3], IMAGES[1:3], TAGS[1:3])
    assert_parts(torch.cat([TAGGED, TAGGED[:1]]), torch.cat([IMAGES, IMAGES[:1]]), torch.cat([TAGS, TAGS[:1]]))
    parts = torch.split(TAGGED, [1, 3])
    for part, rows_of_part in zip(parts, (slice(0, 1), slice(1, 4)), strict=True):
        assert_parts(part, IMAGES[rows_of_part], TAGS[rows_of_part])
    assert (len(TAGGED), TAGGED.shape, TAGGED.ndim, TAGGED.device) == (4, IMAGES.shape, 4, IMAGES.device)
    assert untagged(TAGGED) is IMAGES and untagged(IMAGES) is IMAGES


def test_mixtures_of_both_by_hand() -> None:
    half = torch.lerp(TAGGED[0:1], TAGGED[1:2], 0.25)
    assert_parts(half, IMAGES[0:1] + 3.0, torch.tensor([0.75, 0.25]).view(1, 2, 1, 1))  # image 1 is image 0 plus 12
    weight, partner = torch.tensor([1.0, 0.75, 0.5, 0.5]), torch.tensor([1, 0, 3, 2])
    mixed: Any = mixup(TAGGED, weight, partner)
    expected = [[1.0, 0.0], [0.25, 0.75], [0.375, 0.625], [0.375, 0.625]]
    assert_parts(mixed, mixup(IMAGES, weight, partner), torch.tensor(expected).view(4, 2, 1, 1))


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda: torch.flip(TAGGED, [3]), "flip has no meaning for images with categories; there are cat, lerp, split"),
        (lambda: torch.cat([TAGGED, IMAGES]), "torch.cat of TaggedImages, Tensor: all images have categories, or"),
        (lambda: torch.lerp(IMAGES, TAGGED, 0.5), "torch.lerp of Tensor, TaggedImages"),
        (lambda: torch.cat([TAGGED, TAGGED], dim=1), "torch.cat in dimension 1"),
        (lambda: torch.split(TAGGED, 1, dim=1), "torch.split in dimension 1"),
        (lambda: TAGGED[0, 1], r"by a slice or a tensor of rows, not by \(0, 1\)"),
    ],
)
def test_anything_else_is_refused(operation: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        operation()


def test_each_image_has_a_tag() -> None:
    with pytest.raises(ValueError, match=r"tags are \[3, 2, 1, 1\]; they must be \[4, T, 1, 1\]"):
        TaggedImages(IMAGES, TAGS[:3])
