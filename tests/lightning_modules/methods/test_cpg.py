"""CPG's step by hand, on a network whose logits and features are the pixels."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tailmatch.callbacks import LogitAdjustment
from tailmatch.lightning_modules import CPG
from tailmatch.lightning_modules.bases.image_module import Batch
from tests.contract import run
from tests.lightning_modules.pixel_network import PixelNetwork, image

LABELED = [[2.0, 1.5, 1.0], [0.0, 1.0, 0.0]]
WEAK = [[1.0, 1.2, 3.0], [3.0, 1.0, 1.0], [2.0, 1.5, 1.0], [0.0, 9.0, 0.0]]
STRONG = [[1.0, 1.0, 9.0], [4.0, 1.0, 1.0], [0.0, 9.0, 0.0], [0.0, 9.0, 0.0]]


def batch() -> Batch:
    weak, strong = (torch.cat([image(*row) for row in rows]) for rows in (WEAK, STRONG))
    labeled = torch.cat([image(*row) for row in LABELED])
    return {
        "labeled": {"weak": labeled, "target": torch.tensor([0, 1])},
        "unlabeled": {"weak": weak, "strong": strong, "index": torch.tensor([5, 3, 0, 1])},
    }


def begun(*, steps: int = 8, **arguments: float) -> tuple[CPG, dict[str, Tensor]]:
    """A method after its warm-up, with 40, 10 and 4 labeled and 120, 30 and 3 accepted images; number 0 is among them.

    Image 0 has 3 votes for class 0 and 17 for class 1. There are 108 unlabeled images.
    """
    settings = {"warmup_steps": 8, "every": 5, "copies": 0, "auxiliary": False, **arguments}
    method = CPG(3, network=PixelNetwork, **settings)  # type: ignore[arg-type]
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    method.class_counts.copy_(torch.tensor([40, 10, 4]))
    method.grown.memory.adapt(108)
    if steps >= 8:
        method.grown.accepted.copy_(torch.tensor([120.0, 30.0, 3.0]))
        method.grown.memory.labels[0] = 1
        method.grown.memory.won_voted[0, :2] = torch.tensor([0, 1])
        method.grown.memory.won_votes[0, :2] = torch.tensor([3, 17])
    method.grown.interval.steps.fill_(steps)
    return method, logged


def soft(target: list[float], logits: list[float], counts: list[float]) -> float:
    """Compute the cross-entropy of logits plus log shares, without torch."""
    shifted = [z + math.log(n / sum(counts)) for z, n in zip(logits, counts, strict=True)]
    total = math.log(sum(math.exp(z) for z in shifted))
    return sum(t * (total - z) for t, z in zip(target, shifted, strict=True))


def test_the_main_loss_is_the_mean_over_labeled_and_accepted_images() -> None:
    method, logged = begun()
    loss = method.training_step(batch(), 0)
    counts = [160.0, 40.0, 7.0]
    losses = [soft([0.9, 0.05, 0.05], LABELED[0], counts), soft([0.05, 0.9, 0.05], LABELED[1], counts)]
    accepted = soft([0.15, 0.85, 0.0], WEAK[2], counts)
    assert losses[0] == pytest.approx(soft([0.9, 0.05, 0.05], [2, 1.5, 1], counts)) == pytest.approx(0.45584, abs=1e-5)
    expected = (27 * losses[0] + 27 * losses[1] + 27 * accepted) / 81  # 54 of 2, 108 of 4: each stands for 27
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logged["selected"].item() == 0.25


def test_votes_are_those_of_the_shifted_predictions_of_both_views() -> None:
    method, logged = begun()  # .5859 in the weak view of 5; the views of 0 differ
    method.training_step(batch(), 0)
    memory = method.grown.memory
    assert memory.votes.sum(dim=1).nonzero().flatten().tolist() == [1, 3] and logged["votes"].item() == 0.5
    assert memory.voted[[1, 3], 0].tolist() == [1, 0] and memory.visits.sum() == 4
    warming, logged = begun(steps=3)
    warming.training_step(batch(), 0)
    assert not warming.grown.memory.votes.any() and logged["votes"].item() == 0.25  # without a shift, only that of 1


def test_copies_have_the_weight_of_their_number() -> None:
    method, _ = begun(copies=4)
    method.grown.copies.copy_(torch.tensor([0.0, 4.0, 22.0]))
    method.grown.spread.radii.zero_()  # so that copies equal the features
    loss = method.training_step(batch(), 0)
    counts = [160.0, 40.0, 7.0]
    losses = [soft([0.9, 0.05, 0.05], LABELED[0], counts), soft([0.05, 0.9, 0.05], LABELED[1], counts)]
    accepted = soft([0.15, 0.85, 0.0], WEAK[2], counts)
    assert loss.item() == pytest.approx((losses[0] + 5 * losses[1] + 5 * accepted) / 11, rel=1e-5)


@pytest.mark.parametrize("steps", [3, 8])
def test_the_auxiliary_head_learns_from_all_images(steps: int) -> None:
    method, logged = begun(steps=steps, auxiliary=True)
    assert method.auxiliary is not None
    with torch.no_grad():
        method.auxiliary.weight.copy_(torch.eye(3))
        method.auxiliary.bias.zero_()
    method.training_step(batch(), 0)
    e, counts = (0.1, [40.0, 10.0, 4.0]) if steps == 3 else (0.0, [160.0, 40.0, 7.0])

    def hot(label: int) -> list[float]:
        return [1 - e if k == label else e / 2 for k in range(3)]

    strong = sum(soft(hot(y), row, [1.0] * 3) for y, row in zip([2, 0, 0, 1], STRONG, strict=True)) / 4
    known = [soft(hot(y), row, counts) for y, row in zip([0, 1], LABELED, strict=True)]
    known += [soft(hot(1), WEAK[2], counts)] if steps == 8 else []
    assert logged["loss_auxiliary"].item() == pytest.approx(strong + sum(known) / len(known), rel=1e-5)


def test_post_hoc_adjustment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="those of this CPG are trained to be without it: leave it out"):
        run(CPG, tmp_path, LogitAdjustment())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("warmup_steps", -1), ("every", 0), ("copies", -1), ("threshold", 2.0), ("label_smoothing", 1.0),
        ("vote_share", -0.1), ("agreement", 1.5), ("least_votes", 0),
    ],
)  # fmt: skip
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        begun(**{name: value})
