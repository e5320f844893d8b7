"""Quarter turns against torch.rot90."""

import pytest
import torch

from tailmatch.lightning_modules.views.rotation import rotate_quarters


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_turns_equal_rot90(dtype: torch.dtype) -> None:
    images = torch.randint(256, (9, 3, 5, 5), generator=torch.Generator().manual_seed(0)).to(dtype)
    turns = torch.tensor([0, 1, 2, 3, 3, 2, 1, -1, 6])
    kept = images.clone()
    turned = rotate_quarters(images, turns)
    assert turned.dtype == dtype and torch.equal(images, kept)
    for image, before, turn in zip(turned, images, turns.tolist(), strict=True):
        assert torch.equal(image, torch.rot90(before, turn, (1, 2)))


def test_one_turn_by_hand() -> None:
    image = torch.tensor([[1, 2], [3, 4]]).view(1, 1, 2, 2)
    assert rotate_quarters(image, torch.tensor([1])).flatten().tolist() == [2, 4, 1, 3]  # counter-clockwise


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 4)])
def test_images_must_be_square(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images are \[.*\]; they must be square"):
        rotate_quarters(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64))
