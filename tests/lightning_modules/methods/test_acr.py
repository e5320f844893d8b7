"""ACR's step, by hand on a network whose balanced logits are the pixels."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tailmatch.callbacks import LogitAdjustment
from tailmatch.lightning_modules import ACR
from tailmatch.lightning_modules.bases.image_module import Batch
from tests.contract import prepare, run
from tests.lightning_modules.pixel_network import PixelNetwork, image

Rows = list[list[float]]

PRIOR = (0.7, 0.2, 0.1)
WEAK: Rows = [[0.9, 0.2, 0.1], [0.3, 0.2, 2.9], [0.5, 0.6, 0.1], [1.5, 0.4, 0.2]]
STRONG: tuple[Rows, Rows] = (
    [[1.0, 0.5, 0.0], [0.2, 0.9, 0.1], [0.3, 0.0, 0.8], [0.1, 0.2, 0.7]],
    [[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.5, 0.5, 1.5], [0.4, 0.1, 0.6]],
)
LABELED: Rows = [[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
SLOPES = (4.0, 1.0, 2.0)
"""The standard head's logits are the pixels times these."""


def pixels(rows: Rows) -> Tensor:
    return torch.cat([image(*row) for row in rows])


def batch() -> Batch:
    return {
        "labeled": {"weak": pixels(LABELED), "target": torch.tensor([0, 2])},
        "unlabeled": {
            "weak": pixels(WEAK),
            "strong": [pixels(rows) for rows in STRONG],
            "index": torch.arange(len(WEAK)),
        },
    }


def made(**arguments: float) -> tuple[ACR, dict[str, Tensor]]:
    method = ACR(num_classes=3, network=PixelNetwork, **{"threshold": 0.8, **arguments})  # type: ignore[arg-type]
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    with torch.no_grad():
        method.standard.weight.copy_(torch.diag(torch.tensor(SLOPES)))
        nn.init.zeros_(method.standard.bias)
    method.adjustment.begin(torch.tensor(PRIOR))
    return method, logged


def probs(logits: list[float], tau: float = 0.0) -> list[float]:
    """Compute the softmax of logits minus tau times the log prior, without torch."""
    powers = [math.exp(z) / p**tau for z, p in zip(logits, PRIOR, strict=True)]
    return [power / sum(powers) for power in powers]


def sloped(row: list[float]) -> list[float]:
    return [slope * value for slope, value in zip(SLOPES, row, strict=True)]


def unlabeled_loss(labels: dict[int, int], strong: list[Rows]) -> float:
    """Compute the mean over 8 strong views of the cross-entropy of the rows that have a label."""
    return sum(-math.log(probs(views[row])[label]) for views in strong for row, label in labels.items()) / 8


def test_a_step_by_hand() -> None:
    method, logged = made(tau=1.0, adaptive=False, lambda_u=3.0)
    loss = method.training_step(batch(), 0)
    standard = [sloped(row) for row in WEAK]
    # Row 0 is confident as it is, but not adjusted, row 1 both ways; row 3 is class 0 in either case.
    assert [round(max(probs(row)), 2) for row in standard] == [0.94, 0.99, 0.71, 0.99]
    assert [round(max(probs(row, 1)), 2) for row in standard] == [0.74, 1.0, 0.38, 0.96]
    labels = {0: 0, 1: 2, 3: 0}
    strong = [[sloped(row) for row in rows] for rows in STRONG]
    expected = -sum(math.log(probs(sloped(row))[y]) for row, y in zip(LABELED, (0, 2), strict=True)) / 2
    expected += 3 * unlabeled_loss(labels, strong)
    # The balanced labels are the standard head's at tau 2. Of the balanced head's own predictions, row 1 reaches 0.8.
    assert [[round(p, 2) for p in probs(row, 2)] for row in standard] == [
        [0.33, 0.13, 0.54], [0.0, 0.0, 1.0], [0.08, 0.25, 0.67], [0.82, 0.04, 0.15]
    ]  # fmt: skip
    assert [max(probs(row)) >= 0.8 for row in WEAK] == [False, True, False, False]
    balanced = -sum(math.log(probs(row, -2)[y]) for row, y in zip(LABELED, (0, 2), strict=True)) / 2
    balanced += 3 * unlabeled_loss({1: 2, 3: 0}, list(STRONG))
    assert logged["loss_balanced"].item() == pytest.approx(balanced, rel=1e-5)
    assert loss.item() == pytest.approx(expected + balanced, rel=1e-5)
    assert logged["selected"].item() == 0.75 and logged["selected_balanced"].item() == 0.5


def test_the_balanced_heads_own_confidence_selects_the_label_of_the_standard_head() -> None:
    method, logged = made(adaptive=False, threshold=0.95)
    given = batch()
    given["unlabeled"]["weak"] = pixels([[4.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 8.0, 0.0]])
    with torch.no_grad():
        method.standard.weight.zero_()
    method.training_step(given, 0)
    # The standard head gives logits of 0, whose label at tau 2 is the rarest class: 100 / (2.04 + 25 + 100) = 0.787.
    balanced = -sum(math.log(probs(row, -2)[y]) for row, y in zip(LABELED, (0, 2), strict=True)) / 2
    assert logged["loss_balanced"].item() == pytest.approx(balanced + unlabeled_loss({3: 2}, list(STRONG)), rel=1e-5)
    assert logged["selected"].item() == 0


def test_the_confident_predictions_of_the_balanced_head_move_the_strength_of_the_next_step() -> None:
    method, logged = made(threshold=0.5, warmup_steps=0, every=1, momentum=0.0, estimate="counts")  # type: ignore[arg-type]
    given = batch()
    given["unlabeled"]["weak"] = pixels([[3.0, 0.0, 0.0]] * 5 + [[0.0, 3.0, 0.0]] * 3 + [[0.0, 0.0, 3.0]] * 2)
    given["unlabeled"]["strong"] = [pixels([[1.0, 2.0, 3.0]] * 10)] * 2
    given["unlabeled"]["index"] = torch.arange(10)
    method.training_step(given, 0)
    assert logged["tau"].item() == 2
    method.training_step(given, 0)
    assert logged["tau"].item() == pytest.approx(0.5342, abs=1e-4)
    # The refined rows of a fixed tau are the same:
    fixed, fixed_logged = made(threshold=0.5, tau=float(logged["tau"]), adaptive=False)
    fixed.training_step(given, 0)
    assert fixed_logged["loss"].item() == pytest.approx(logged["loss"].item(), rel=1e-6)


def test_labeled_images_among_the_unlabeled_ones_do_not_count_in_the_estimate(tmp_path: Path) -> None:
    method, _ = made(threshold=0.5, warmup_steps=0, momentum=0.0)
    method.labeled_in_front = 1
    given = batch()
    given["unlabeled"]["weak"] = pixels([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
    method.training_step(given, 0)
    assert method.adjustment.probs.tolist() == [0.0, 0.5, 0.5]
    for included, expected in ((False, 0), (True, 40)):
        trainer, model, data = prepare(ACR, tmp_path, max_steps=1, limit_val_batches=0, enable_checkpointing=False)
        data.include_labeled_in_unlabeled = included
        trainer.fit(model, data)
        assert isinstance(model, ACR) and model.labeled_in_front == expected


def test_refiners_get_adjusted_rows_and_leave_the_balanced_head_alone() -> None:
    class ToClassOne:
        def refine(self, probs: Tensor, index: Tensor) -> Tensor:
            seen.append(probs)
            return torch.eye(3)[torch.ones(len(probs), dtype=torch.long)]

    seen: list[Tensor] = []
    method, logged = made(tau=1.0, adaptive=False)
    method.training_step(batch(), 0)
    plain = dict(logged)
    method.add_refiner(ToClassOne())
    method.training_step(batch(), 0)
    torch.testing.assert_close(seen[0], torch.tensor([probs(sloped(row), 1) for row in WEAK]))
    strong = [[sloped(row) for row in rows] for rows in STRONG]
    expected = unlabeled_loss({0: 1, 1: 1, 2: 1, 3: 1}, strong)
    assert logged["loss_unlabeled"].item() == pytest.approx(expected, rel=1e-5)
    assert logged["loss_balanced"] == plain["loss_balanced"]


def test_post_hoc_adjustment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="those of this ACR are trained to be without it: leave it out"):
        run(ACR, tmp_path, LogitAdjustment())


@pytest.mark.parametrize(
    ("name", "value"),
    [("tau", -1.0), ("tau_balanced", -1.0), ("momentum", 1.0), ("every", 0), ("warmup_steps", -1), ("estimate", "all")],
)
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value!r}"):
        made(**{name: value})
