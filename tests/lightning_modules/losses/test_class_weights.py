"""Class weights by hand, and the step at which deferred ones begin."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.losses import ClassWeights, DeferredReweighting, EffectiveNumberWeights, InverseWeights

COUNTS = torch.tensor([1, 2, 4])


def at(epoch: int = 0, step: int = 0, steps: int = 10, epochs: float = 5) -> ImageModule:
    """A method at a point of its training."""
    point = SimpleNamespace(
        current_epoch=epoch, global_step=step, total_steps=lambda: steps, total_epochs=lambda: epochs
    )
    return cast(ImageModule, point)


def test_inverse_by_hand() -> None:
    # 1, 1/2 and 1/4 add up to 7/4; three classes: times 12/7.
    assert InverseWeights().weights(COUNTS).tolist() == pytest.approx([12 / 7, 6 / 7, 3 / 7])


def test_effective_number_by_hand() -> None:
    # beta 0.5: 1 - beta^n is 1/2, 3/4, 15/16; inverses 2, 4/3, 16/15 add up to 22/5.
    assert EffectiveNumberWeights(0.5).weights(COUNTS).tolist() == pytest.approx([15 / 11, 10 / 11, 8 / 11])


def test_effective_number_lies_between_equal_and_inverse() -> None:
    assert EffectiveNumberWeights(0.0).weights(COUNTS).tolist() == [1, 1, 1]
    assert EffectiveNumberWeights(1 - 1e-9).weights(COUNTS).tolist() == pytest.approx(
        InverseWeights().weights(COUNTS).tolist()
    )


def test_default_on_long_tailed_cifar10_is_that_of_the_authors_formula() -> None:
    counts = torch.tensor([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
    inverse = (1 - 0.9999) / (1 - 0.9999 ** counts.double())
    torch.testing.assert_close(EffectiveNumberWeights().weights(counts), (inverse / inverse.sum() * 10).float())


@pytest.mark.parametrize("weights", [InverseWeights(), EffectiveNumberWeights(), DeferredReweighting(start_step=2)])
def test_every_class_needs_an_image(weights: ClassWeights) -> None:
    with pytest.raises(ValueError, match="needs labeled images of every class, and there is none of class 1 "):
        weights.weights(torch.tensor([3, 0]))


def test_deferred_weights_are_those_of_what_is_deferred() -> None:
    assert torch.equal(DeferredReweighting(start_step=2).weights(COUNTS), EffectiveNumberWeights().weights(COUNTS))
    inverse = DeferredReweighting(InverseWeights(), start_epoch=2)
    assert torch.equal(inverse.weights(COUNTS), InverseWeights().weights(COUNTS))


@pytest.mark.parametrize(
    ("start", "before", "first"),
    [
        ({"start_epoch": 2}, at(epoch=1, step=9), at(epoch=2, step=0)),
        ({"start_step": 7}, at(epoch=9, step=6), at(step=7)),
        ({"start_share": 0.7}, at(step=6), at(step=7)),  # 0.7 * 10 is above 7 in floating point
        ({"start_share": 0.8}, at(step=15519, steps=19400), at(step=15520, steps=19400)),  # epoch 160 of 200
        ({"start_share": 0.5}, at(step=1, steps=3), at(step=2, steps=3)),
    ],
)
def test_they_begin_at_their_start(start: dict[str, Any], before: ImageModule, first: ImageModule) -> None:
    weights = DeferredReweighting(**start)
    assert not weights.active(before) and weights.active(first)
    assert InverseWeights().active(before)


def test_deferred_twice_waits_for_both() -> None:
    twice = DeferredReweighting(DeferredReweighting(start_step=5), start_step=2)
    assert not twice.active(at(step=3)) and twice.active(at(step=5))


@pytest.mark.parametrize("start", [{}, {"start_step": 2, "start_share": 0.5}])
def test_exactly_one_start(start: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs one of .*start_epoch.*start_step.*start_share"):
        DeferredReweighting(**start)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"start_epoch": 5}, "start_epoch is 5, and the training has 5 epochs"),
        ({"start_step": 10}, "start_step is 10, and the training has 10 steps"),
    ],
)
def test_a_start_that_never_comes_is_refused(start: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeferredReweighting(**start).check(at())


@pytest.mark.parametrize("start", [{"start_epoch": 4}, {"start_step": 9}, {"start_share": 0.99}])
def test_a_start_before_the_end_is_taken(start: dict[str, Any]) -> None:
    DeferredReweighting(**start).check(at())
    DeferredReweighting(**start).check(at(epochs=math.inf))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_epoch": -1}, "start_epoch is -1"),
        ({"start_share": 1.0}, r"start_share is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeferredReweighting(**arguments)


@pytest.mark.parametrize("beta", [-0.1, 1.0])
def test_beta_is_checked(beta: float) -> None:
    with pytest.raises(ValueError, match=f"beta is {beta}"):
        EffectiveNumberWeights(beta)
