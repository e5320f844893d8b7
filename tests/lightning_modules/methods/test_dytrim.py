"""DyTrim: which images stay, by hand, and the losses of a step."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tailmatch.callbacks import CDMAD
from tailmatch.lightning_modules import DyTrim
from tailmatch.lightning_modules.pseudo_labels.trimming import (
    UNSEEN,
    at_least_mean,
    largest_of_class,
    mean_of_kept,
    sizes_of_rest,
)
from tests.contract import Method, prepare
from tests.lightning_modules.pixel_network import PixelNetwork, image


def test_sizes_by_hand() -> None:
    found = sizes_of_rest(torch.tensor([100, 50, 10, 1]), torch.tensor([0.7, 0.2, 0.1, 0.05]))
    assert found.tolist() == [30, 40, 9, 1]  # the authors' code has none of the last


def test_the_largest_losses_of_each_class_stay() -> None:
    losses = torch.tensor([0.1, 0.9, 0.5, 0.2, UNSEEN, 0.4])
    targets, sizes = torch.tensor([0, 0, 0, 1, 0, 1]), torch.tensor([2, 1])
    everything = torch.arange(6)
    assert largest_of_class(losses, targets, everything, sizes).tolist() == [False, True, False, False, True, True]
    order = torch.tensor([5, 2, 1])
    assert largest_of_class(losses, targets, order, sizes).tolist() == [True, False, True]
    assert largest_of_class(losses, 1 - targets, everything, sizes.flip(0)).tolist() == [0, 1, 0, 0, 1, 1]
    unseen = torch.full((6,), UNSEEN)
    assert largest_of_class(unseen, targets, everything, torch.ones(2)).all()


def test_losses_below_the_mean_are_found() -> None:
    losses = torch.tensor([0.0, 2.0, 1.0, UNSEEN, UNSEEN])  # mean 1
    assert at_least_mean(losses, torch.tensor([3, 0, 1, 2])).tolist() == [True, False, True, True]
    assert at_least_mean(torch.full((3,), UNSEEN), torch.tensor([1, 2])).tolist() == [True, True]


def test_the_mean_is_that_of_a_batch_of_kept_images() -> None:
    losses, kept = torch.tensor([1.0, 5.0, 3.0, 2.0]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    weights = torch.tensor([1.0, 0.0, 4.0, 1.0])  # of the authors' batch (1, 3, 2): (1 + 12 + 2) / 3
    assert mean_of_kept(losses, weights, kept).item() == pytest.approx(5)
    assert mean_of_kept(losses, 0 * weights, 0 * kept).item() == 0


def made(bias: Tensor | None = None, done: int = 0, **kwargs: Any) -> Any:
    """A method with 4 labeled and 3 unlabeled images, whose logits are the pixels."""
    method: Any = DyTrim(3, network=PixelNetwork, **kwargs)
    method._trainer = SimpleNamespace(global_step=done, max_steps=100, max_epochs=-1, world_size=1)
    method.class_counts.copy_(torch.tensor([2, 1, 1]))
    method.labeled_targets = torch.tensor([0, 0, 1, 2])
    method.labeled_losses.adapt(4)
    method.unlabeled_losses.adapt(3)
    method._aligners = [SimpleNamespace(bias=bias, refine=lambda probs, index: probs)]
    method.logged = {}
    method.track = method.logged.update
    return method


def batch() -> Any:
    return {
        "labeled": {
            "weak": torch.cat([image(1, 0, 0), image(2, 0, 0), image(0, 0, 1)]),
            "target": torch.tensor([0, 0, 2]),
            "index": torch.tensor([0, 1, 3]),
        },
        "unlabeled": {
            "weak": torch.cat([image(0, 9, 0), image(0, 0, 0)]),
            "strong": [torch.cat([image(0, 3, 0), image(1, 0, 0)]), torch.cat([image(0, 2, 0), image(0, 0, 0)])],
            "index": torch.tensor([2, 0]),
        },
    }


def cross_entropy(logits: tuple[float, ...], target: tuple[float, ...]) -> float:
    total = math.log(sum(math.exp(value) for value in logits))
    return sum(q * (total - value) for value, q in zip(logits, target, strict=True))


ONE, THIRD = (1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)
SURE = (1 / (math.e**9 + 2), math.e**9 / (math.e**9 + 2), 1 / (math.e**9 + 2))
LOSSES = [cross_entropy((1, 0, 0), ONE), cross_entropy((2, 0, 0), ONE), cross_entropy((1, 0, 0), ONE)]
SUMS = [
    cross_entropy((0, 3, 0), SURE) + cross_entropy((0, 2, 0), SURE),
    cross_entropy((1, 0, 0), THIRD) + cross_entropy((0, 0, 0), THIRD),
]


@pytest.mark.parametrize(("draw", "weight", "kept"), [(None, 1, 0.3), (0.29, 1 / 0.3, 1), (0.31, 0, 0)])
def test_a_step_by_hand(draw: float | None, weight: float, kept: float, monkeypatch: pytest.MonkeyPatch) -> None:
    method = made(draw_images=draw is not None)
    method.training_step(batch(), 0)
    assert method.logged["kept_labeled"].item() == method.logged["kept"].item() == 1  # nothing had a loss
    assert method.logged["loss_labeled"].item() == pytest.approx(sum(LOSSES) / 3, rel=1e-5)
    assert method.logged["loss_unlabeled"].item() == pytest.approx(sum(SUMS) / 4, rel=1e-5)
    expected = [LOSSES[0], LOSSES[1], UNSEEN, LOSSES[2], UNSEEN]
    torch.testing.assert_close(method.labeled_losses.rows[:, 0], torch.tensor(expected))
    torch.testing.assert_close(method.unlabeled_losses.rows[:3, 0], torch.tensor([SUMS[1], UNSEEN, SUMS[0]]))
    # The labeled shares are (.5, .25, .25): one image of each class stays, that with the larger loss of class 0.
    # The first unlabeled image has a loss below the mean.
    monkeypatch.setattr(torch, "rand", lambda size: torch.tensor([0.0 if draw is None else draw, 0.99]))
    loss = method.training_step(batch(), 0)
    labeled = (LOSSES[0] + LOSSES[2]) / 2
    unlabeled = (weight * SUMS[0] + SUMS[1]) / 2 / (1 + kept)
    assert method.logged["loss_labeled"].item() == pytest.approx(labeled, rel=1e-5)
    assert method.logged["loss_unlabeled"].item() == pytest.approx(unlabeled, rel=1e-5)
    assert loss.item() == pytest.approx(labeled + unlabeled, rel=1e-5)


def test_shares_are_those_of_the_bias_after_the_warm_up() -> None:
    method = made(torch.tensor([0.2, 3.0, 0.0]).log())
    method.class_counts.copy_(torch.tensor([200, 1, 1]))  # share .2 / 3.2 of the bias: 187 stay, so that all do
    method.training_step(batch(), 0)
    method.training_step(batch(), 0)
    assert method.logged["kept_labeled"].item() == 1


def test_in_the_end_all_images_stay() -> None:
    method = made(done=88)
    for _ in range(2):
        method.training_step(batch(), 0)
        assert method.logged["loss_labeled"].item() == pytest.approx(sum(LOSSES) / 3, rel=1e-5)
        assert method.logged["loss_unlabeled"].item() == pytest.approx(sum(SUMS) / 4, rel=1e-5)


def test_images_that_are_left_out_keep_their_losses() -> None:
    method = made(draw_images=False)
    method.training_step(batch(), 0)
    method.labeled_losses.rows[0] = 7.0
    changed = batch()
    changed["labeled"]["weak"] = changed["labeled"]["weak"] * 2
    method.training_step(changed, 0)
    assert method.labeled_losses.rows[1].item() == pytest.approx(LOSSES[1], rel=1e-5)
    assert method.labeled_losses.rows[0].item() == pytest.approx(LOSSES[1], rel=1e-5)  # now (2, 0, 0) itself


def test_bad_values_and_a_missing_cdmad_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"share": 0, "end": 1.5}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            DyTrim(3, network=PixelNetwork, **{name: value})  # type: ignore[arg-type]
    monkeypatch.setattr("tests.contract.entry", lambda method: Method())
    trainer, model, data = prepare(DyTrim, tmp_path)
    with pytest.raises(ValueError, match=r"add --config callbacks/cdmad\.yaml"):
        trainer.fit(model, data)
    trainer, model, data = prepare(DyTrim, tmp_path, CDMAD(warmup_epochs=1))
    trainer.fit(model, data)
    assert model.blank == "light" and model.balanced_evaluation
