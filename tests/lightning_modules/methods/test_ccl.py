"""CCL's step by hand, on a network whose balanced logits are the pixels, and its priors."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tailmatch.callbacks import LogitAdjustment
from tailmatch.lightning_modules import CCL
from tailmatch.lightning_modules.bases.image_module import Batch
from tests.contract import prepare, run
from tests.lightning_modules.pixel_network import PixelNetwork, image

Rows = list[list[float]]

PI, PI_C, PI_U = (0.7, 0.2, 0.1), (0.5, 0.3, 0.2), (0.2, 0.3, 0.5)
WEAK: Rows = [[9.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 8.0]]
STRONG: tuple[Rows, Rows] = (
    [[1.0, 0.5, 0.0], [0.2, 0.9, 0.1], [0.3, 0.0, 0.8], [0.1, 0.2, 0.7]],
    [[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.5, 0.5, 1.5], [0.4, 0.1, 0.6]],
)
LABELED: Rows = [[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
CONTRAST: tuple[Rows, Rows] = ([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0]], [[3.0, 2.0, 0.0], [0.0, 2.0, 3.0]])
SLOPES = (1.0, 2.0, 1.0)
"""The standard head's logits are the pixels times these."""


class LinearPixelNetwork(PixelNetwork):
    """Logits are a linear layer's, at first the first three pixels of the red channel."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.head = nn.Linear(3, 3)
        self.head.load_state_dict({"weight": torch.eye(3), "bias": torch.zeros(3)})


def pixels(rows: Rows) -> Tensor:
    return torch.cat([image(*row) for row in rows])


def batch() -> Batch:
    return {
        "labeled": {
            "weak": pixels(LABELED),
            "contrast": [pixels(rows) for rows in CONTRAST],
            "target": torch.tensor([0, 2]),
        },
        "unlabeled": {
            "weak": pixels(WEAK),
            "strong": [pixels(rows) for rows in STRONG],
            "index": torch.tensor([5, 0, 1, 3]),
        },
    }


def made(step: int = 0, **arguments: Any) -> tuple[Any, dict[str, Tensor]]:
    """A method at a step, whose contrasts are 2 and 3, and what it logs."""
    given = {"tau": 1.0, "threshold": 0.9, "energy_threshold": 4.0, "warmup_steps": 2, "every": 1, **arguments}
    method: Any = CCL(3, network=LinearPixelNetwork, **given)
    logged: dict[str, Tensor] = {}
    method.track = logged.update
    method._trainer = SimpleNamespace(global_step=step)
    method.class_counts.copy_(torch.tensor([7, 2, 1]))
    method.prior.begin(torch.tensor(PI_C))
    method.unlabeled_prior.begin(torch.tensor(PI_U))
    method.standard.load_state_dict({"weight": torch.diag(torch.tensor(SLOPES)), "bias": torch.zeros(3)})
    method.contrasts = Contrasts()
    return method, logged


class Contrasts(nn.Module):
    def forward(self, *given: Any) -> tuple[Tensor, Tensor]:
        self.given = given
        return torch.tensor(2.0), torch.tensor(3.0)


def probs(logits: list[float]) -> list[float]:
    powers = [math.exp(z) for z in logits]
    return [power / sum(powers) for power in powers]


def consensus(row: list[float]) -> list[float]:
    """Compute the joint logits v of both heads for a weak view: tau is 1, and there are 2 unlabeled images a label."""
    shifts = [1.5 * math.log(u) - math.log((p + 2 * c) / 3) for p, c, u in zip(PI, PI_C, PI_U, strict=True)]
    return [(slope * z + shift + z) / 2 for slope, z, shift in zip(SLOPES, row, shifts, strict=True)]


def head_loss(slopes: tuple[float, ...], labeled: tuple[float, ...], strong: tuple[float, ...]) -> float:
    """Compute a head's loss, where rows 0 and 3 are selected with the labels 0 and 2."""

    def entropy(row: list[float], prior: tuple[float, ...], label: int) -> float:
        return -math.log(probs([s * z + math.log(p) for s, z, p in zip(slopes, row, prior, strict=True)])[label])

    loss = sum(entropy(row, labeled, y) for row, y in zip(LABELED, (0, 2), strict=True)) / 2
    unlabeled = sum(entropy(views[row], strong, y) for views in STRONG for row, y in ((0, 0), (3, 2))) / 8
    return loss + 2 * unlabeled  # the weight is the number of unlabeled images a label, since it is above 1.5


def test_a_step_by_hand() -> None:
    method, logged = made()
    loss = method.training_step(batch(), 0)
    joint = [consensus(row) for row in WEAK]
    assert [max(probs(row)) >= 0.9 for row in joint] == [True, False, False, True]
    assert [probs(row).index(max(probs(row))) for row in joint] == [0, 1, 1, 2]
    energies = [-math.log(sum(math.exp(z) for z in row)) for row in joint]
    assert [energy <= -4 for energy in energies] == [True, False, False, True]
    none = (1.0, 1.0, 1.0)
    expected = head_loss(SLOPES, none, none), head_loss(none, PI, PI_C)
    assert [logged[f"loss_{name}"].item() for name in ("standard", "balanced")] == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx(0.7 * sum(expected) + 2.0 + 0.3 * 3.0, rel=1e-5)
    assert logged["selected"].item() == logged["reliable"].item() == 0.5


def test_the_contrasts_get_the_features_of_their_views() -> None:
    method, _ = made(energy_threshold=2.0)
    method.training_step(batch(), 0)
    pair, labels, views, q, reliable, weight = method.contrasts.given
    for found, rows in zip([*pair, *views], [*CONTRAST, WEAK, *STRONG], strict=True):
        torch.testing.assert_close(found, torch.tensor(rows))
    assert labels.tolist() == [0, 2] and weight is method.network.head.weight
    torch.testing.assert_close(q, torch.tensor([probs(consensus(row)) for row in WEAK]))
    energies = [-math.log(sum(math.exp(z) for z in consensus(row))) for row in WEAK]
    assert reliable.tolist() == [float(energy <= -2) for energy in energies] == [1, 1, 0, 1]


def test_priors_move_after_the_warm_up_and_labeled_images_do_not_count_in_the_one_of_unlabeled_images() -> None:
    method, _ = made(step=1)
    method.training_step(batch(), 0)
    assert method.prior.probs.tolist() == pytest.approx(PI_C)  # 2 steps of the training are the warm-up
    method, _ = made(step=2, momentum=0.8, unlabeled_momentum=0.6)
    method.labeled_in_front = 4  # all but row 0
    method.training_step(batch(), 0)
    first, last = (probs(consensus(WEAK[row])) for row in (0, 3))
    of_all = [0.8 * c + 0.2 * (1 + a + b) / 5 for c, a, b in zip(PI_C, first, last, strict=True)]
    unlabeled = [0.6 * u + 0.4 * (1 + a) / 4 for u, a in zip(PI_U, first, strict=True)]
    assert method.prior.probs.tolist() == pytest.approx(of_all, rel=1e-5)
    assert method.unlabeled_prior.probs.tolist() == pytest.approx(unlabeled, rel=1e-5)


def test_remedies_change_the_one_pseudo_label_of_both_heads() -> None:
    class ToClassOne:
        def refine(self, probs: Tensor, index: Tensor) -> Tensor:
            return torch.eye(3)[torch.ones(len(probs), dtype=torch.long)]

    method, logged = made(step=2)
    method.training_step(batch(), 0)
    plain = dict(logged)
    method.add_refiner(ToClassOne())
    method.training_step(batch(), 0)
    assert logged["selected"].item() == 1
    for name in ("loss_standard", "loss_balanced"):
        assert abs(logged[name] - plain[name]) > 0.1
    assert method.contrasts.given[3].tolist() == [[0, 1, 0]] * 4


def test_it_begins_with_the_labeled_prior_and_two_views_of_labeled_images(tmp_path: Path) -> None:
    trainer, model, data = prepare(CCL, tmp_path, max_steps=2, limit_val_batches=0, enable_checkpointing=False)
    data.include_labeled_in_unlabeled = True
    trainer.fit(model, data)
    assert isinstance(model, CCL) and model.labeled_in_front == 40
    torch.testing.assert_close(model.prior.probs, torch.full((10,), 0.1))
    images = torch.rand(4, 3, 8, 8).mul(255).byte()
    labeled = model.make_views({name: {"image": images} for name in model.streams})["labeled"]
    first, second = labeled["contrast"]
    assert first.shape == second.shape == labeled["weak"].shape and not torch.equal(first, second)


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="those of this CCL are trained to be without it: leave it out"):
        run(CCL, tmp_path, LogitAdjustment())
    with pytest.raises(ValueError, match="head is a Identity, and CCL's centers are the weights of a linear one"):
        CCL(3, network=PixelNetwork)
    with pytest.raises(ValueError, match="would never begin: warmup_steps is 12"):
        run(partial(CCL, warmup_steps=12), tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tau", -1.0), ("lambda_classes", 1.5), ("lambda_smoothed", -1.0), ("momentum", 1.0), ("every", 0),
     ("unlabeled_momentum", 1.0), ("warmup_steps", -1), ("energy_threshold", math.nan)],
)  # fmt: skip
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value!r}"):
        made(**{name: value})
