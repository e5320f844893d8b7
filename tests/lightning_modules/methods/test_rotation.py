"""Rotation prediction: turns in a batch, what is fed, and its loss by hand."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tailmatch.lightning_modules import RotationPretraining
from tailmatch.lightning_modules.methods.rotation import balanced_turns
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.views import WeakView


def method(**kwargs: Any) -> RotationPretraining:
    made = RotationPretraining(num_classes=10, network=partial(CifarResNet, depth=8), **kwargs)
    made.track = lambda **values: None  # type: ignore[method-assign]
    return made


def test_the_four_turns_are_equally_many_and_in_random_order() -> None:
    torch.manual_seed(0)
    drawn = [balanced_turns(12) for _ in range(400)]
    assert all(torch.bincount(turns).tolist() == [3] * 4 for turns in drawn)
    first = torch.bincount(torch.stack(drawn)[:, 0], minlength=4)
    assert (first > 70).all() and (first < 130).all()  # 100 each; five standard deviations are 43


def test_surplus_turns_are_drawn() -> None:
    torch.manual_seed(0)
    counts = torch.stack([torch.bincount(balanced_turns(6), minlength=4) for _ in range(400)])
    assert ((counts == 1) | (counts == 2)).all() and (counts.sum(1) == 6).all()
    surplus = (counts == 2).sum(0)
    assert (surplus > 150).all() and (surplus < 250).all()  # 200 each


@pytest.mark.parametrize("all_rotations", [False, True])
def test_images_are_turned_as_the_target_says(all_rotations: bool) -> None:
    torch.manual_seed(0)
    images = torch.randint(256, (8, 3, 6, 6), dtype=torch.uint8)
    still = WeakView(translate=0, flip=False)
    pool = method(all_rotations=all_rotations, view=still).make_views({"pool": {"image": images}})["pool"]
    assert len(pool["rotated"]) == len(pool["turns"]) == (32 if all_rotations else 8)
    for place, (rotated, turns) in enumerate(zip(pool["rotated"], pool["turns"].tolist(), strict=True)):
        assert torch.equal(rotated, torch.rot90(images[place % 8], turns, (1, 2)) / 255)
    if all_rotations:  # each image in each of the four rotations
        assert sorted((place % 8, turn) for place, turn in enumerate(pool["turns"].tolist())) == [
            (image, turn) for image in range(8) for turn in range(4)
        ]


def test_loss_by_hand() -> None:
    rotation = method()
    logged: dict[str, torch.Tensor] = {}
    rotation.track = logged.update  # type: ignore[method-assign,assignment]
    head = rotation.network.head
    assert isinstance(head, nn.Linear) and head.out_features == 4
    nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([0.0, 1, 0, 0])  # logits of every image, whatever its features
    batch = {"pool": {"rotated": torch.rand(2, 3, 8, 8), "turns": torch.tensor([1, 3])}}
    loss = rotation.training_step(batch, 0)
    total = math.log(math.e + 3)
    assert loss.item() == pytest.approx(((total - 1) + total) / 2, rel=1e-5)
    assert logged["rotation_accuracy"].item() == 0.5


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[4, 3, 6, 8\]; they must be square"):
        method().make_views({"pool": {"image": torch.zeros(4, 3, 6, 8, dtype=torch.uint8)}})
