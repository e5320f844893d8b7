"""SimPro's step and its two priors, by hand on a network whose logits are the pixels."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.callbacks import DARP, LogitAdjustment
from tailmatch.lightning_modules import FixMatch, SimPro
from tailmatch.lightning_modules.bases.image_module import Batch
from tests.contract import at_epoch_ends, run, saved
from tests.lightning_modules.pixel_network import PixelNetwork, image

WEAK = [[3.0, 1.0, 0.0], [1.0, 1.2, 1.0], [0.0, 0.0, 4.0]]
STRONG = [[1.0, 0.5, 0.0], [0.2, 0.9, 0.1], [0.3, 0.0, 0.8]], [[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.5, 0.5, 1.5]]
LABELED = [[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]], [[1.0, 1.0, 0.5], [0.0, 0.5, 1.0]]


def pixels(rows: list[list[float]], order: list[int]) -> Tensor:
    return torch.cat([image(*(row[k] for k in order)) for row in rows])


def batch(order: list[int] = [0, 1, 2]) -> Batch:  # noqa: B006
    """A batch whose class k is class `order[k]` of the given numbers."""
    weak, strong = (pixels(rows, order) for rows in LABELED)
    target = torch.tensor([order.index(0), order.index(1)])
    views = [pixels(rows, order) for rows in STRONG]
    return {
        "labeled": {"weak": weak, "strong": strong, "target": target},
        "unlabeled": {"weak": pixels(WEAK, order), "strong": views, "index": torch.arange(3)},
    }


def made(kind: type[FixMatch] = SimPro, **arguments: float) -> tuple[FixMatch, dict[str, Tensor]]:
    method = kind(num_classes=3, network=PixelNetwork, **arguments)  # type: ignore[arg-type]
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    return method, logged


def begun(order: list[int], **arguments: float) -> tuple[SimPro, dict[str, Tensor]]:
    method, logged = made(**{"threshold": 0.8, "every": 2, **arguments})
    assert isinstance(method, SimPro)
    method.unlabeled_prior.begin(torch.tensor([0.5, 0.3, 0.2])[order])
    method.prior.begin(torch.tensor([0.7, 0.2, 0.1])[order])
    return method, logged


def soft(target: list[float], logits: list[float], prior: tuple[float, ...]) -> float:
    """Compute the cross-entropy of logits plus twice the log prior, without torch."""
    shifted = [z + 2 * math.log(p) for z, p in zip(logits, prior, strict=True)]
    total = math.log(sum(math.exp(z) for z in shifted))
    return sum(t * (total - z) for t, z in zip(target, shifted, strict=True))


def test_a_step_by_hand() -> None:
    method, logged = begun([0, 1, 2], lambda_l=0.25)
    loss = method.training_step(batch(), 0)
    prior = (0.7, 0.2, 0.1)
    q = [[0.94639, 0.04611, 0.00750], [], [0.09908, 0.03567, 0.86525]]  # the second has 0.6251, below the threshold
    unlabeled = sum(soft(q[row], views[row], prior) for views in STRONG for row in (0, 2)) / 6
    hot = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    labeled = sum(soft(hot[row], views[row], prior) for views in LABELED for row in (0, 1)) / 4
    assert logged["loss_unlabeled"].item() == pytest.approx(unlabeled, rel=1e-4)
    assert logged["loss_labeled"].item() == pytest.approx(labeled, rel=1e-5)
    assert loss.item() == pytest.approx(0.25 * labeled + unlabeled, rel=1e-4)
    assert logged["selected"].item() == pytest.approx(2 / 3)


def test_priors_move_after_the_step_that_ends_an_interval() -> None:
    method, _ = begun([0, 1, 2], every=1)
    given = {"labeled": {**batch()["labeled"]}, "unlabeled": batch()["unlabeled"]}
    for key in ("weak", "strong"):
        given["labeled"][key] = given["labeled"][key].repeat(2, 1, 1, 1)
    given["labeled"]["target"] = torch.tensor([0, 0, 1, 2])  # C = (2, 1, 1)
    before = method.training_step(given, 0)
    assert method.unlabeled_prior.probs.tolist() == pytest.approx([0.4848, 0.2727, 0.2091], abs=1e-4)
    assert method.prior.probs.tolist() == pytest.approx([0.6808, 0.1980, 0.1212], abs=1e-4)
    assert method.training_step(given, 0) != before


def test_with_uniform_unlabeled_images_it_begins_as_fixmatch_with_soft_targets_and_an_adjusted_loss() -> None:
    method, logged = begun([0, 1, 2], tau=1.0)
    method.unlabeled_prior.begin(torch.ones(3))
    method.training_step(batch(), 0)
    shift = torch.tensor([0.7, 0.2, 0.1]).log()
    views = torch.cat([torch.tensor(rows) for rows in STRONG])
    probs = torch.tensor(WEAK).softmax(dim=1)
    mask = (probs.amax(dim=1) >= 0.8).float().repeat(2)
    expected = (functional.cross_entropy(views + shift, probs.repeat(2, 1), reduction="none") * mask).mean()
    torch.testing.assert_close(logged["loss_unlabeled"], expected)
    labeled = torch.cat([torch.tensor(rows) for rows in LABELED]) + shift
    torch.testing.assert_close(logged["loss_labeled"], functional.cross_entropy(labeled, torch.tensor([0, 1, 0, 1])))


def test_without_strength_neither_prior_counts() -> None:
    method, logged = begun([0, 1, 2], tau=0.0)
    method.training_step(batch(), 0)
    other, plain = made(threshold=0.8, tau=0.0)
    other.training_step(batch(), 0)
    assert logged["loss"].item() == plain["loss"].item()


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 0, 2]])
def test_another_order_of_the_classes_permutes_the_priors_and_nothing_else(order: list[int]) -> None:
    method, logged = begun([0, 1, 2])
    other, permuted = begun(order)
    for _ in range(4):  # two intervals
        method.training_step(batch(), 0)
        other.training_step(batch(order), 0)
        torch.testing.assert_close(permuted, logged)
    assert method.prior.probs.unique().numel() == 3
    torch.testing.assert_close(other.prior.probs, method.prior.probs[order])
    torch.testing.assert_close(other.unlabeled_prior.probs, method.unlabeled_prior.probs[order])


def test_a_training_begins_with_the_labeled_prior_and_weighs_both_sets_by_their_passes(tmp_path: Path) -> None:
    trainer = run(SimPro, tmp_path, at_epoch_ends(tmp_path), max_steps=1, limit_val_batches=0)
    model = trainer.lightning_module
    assert isinstance(model, SimPro)
    # A step has 6 of 40 labeled and 12 of 60 unlabeled images: they pass in 6.67 and 5 steps.
    assert model.labeled_weight == pytest.approx(40 / 6 / (60 / 12))
    state = saved(tmp_path)["state_dict"]
    assert int(state["prior.steps"]) == 1 and state["unlabeled_prior.counts"].any()
    torch.testing.assert_close(state["prior.probs"], torch.full((10,), 0.1))


def test_a_true_target_of_darp_moves_the_estimate(tmp_path: Path) -> None:
    def estimate(*callbacks: DARP) -> Tensor:
        run_of = run(SimPro, tmp_path, *callbacks, limit_val_batches=0, enable_checkpointing=False)
        model = run_of.lightning_module
        assert isinstance(model, SimPro)
        return model.unlabeled_prior.probs

    target = [100.0] + [1.0] * 9
    alone, refined = estimate(), estimate(DARP(target=target, warmup_epochs=0, refine_every=1))
    assert refined[0] > alone[0] + 0.05


def test_post_hoc_adjustment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="those of this SimPro are trained to be without it: leave it out"):
        run(SimPro, tmp_path, LogitAdjustment())


@pytest.mark.parametrize(
    ("name", "value"), [("tau", -1.0), ("lambda_l", -0.5), ("momentum", 1.0), ("every", 0), ("threshold", 2.0)]
)
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        made(**{name: value})
