"""BOAT's step and evaluation, by hand on a network whose balanced logits are the pixels."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tailmatch
from tailmatch.callbacks import LogitAdjustment
from tailmatch.lightning_modules import BOAT
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.inference.export import export
from tests.contract import at_epoch_ends, run
from tests.lightning_modules.pixel_network import PixelNetwork, image

Rows = list[list[float]]

PRIOR = [0.7, 0.2, 0.1]
STANDARD_PRIOR = [0.6, 0.3, 0.1]
BALANCED_PRIOR = [0.4, 0.35, 0.25]
WEAK: Rows = [[2.0, 1.8, 1.5], [0.0, 6.0, 0.0]]
STRONG: tuple[Rows, Rows] = ([[1.0, 0.5, 0.0], [0.2, 0.9, 0.1]], [[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
LABELED: Rows = [[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]


def pixels(rows: Rows) -> Tensor:
    return torch.cat([image(*row) for row in rows])


def batch(rows: int = 2) -> Batch:
    """A batch of two labeled images and the first of the unlabeled ones."""
    return {
        "labeled": {"weak": pixels(LABELED), "target": torch.tensor([0, 2])},
        "unlabeled": {
            "weak": pixels(WEAK[:rows]),
            "strong": [pixels(views[:rows]) for views in STRONG],
            "index": torch.arange(rows),
        },
    }


def made(**arguments: float) -> tuple[BOAT, dict[str, Tensor]]:
    """Make a method whose standard head gives the pixels too, and whose priors are near the constants above."""
    settings = {"momentum": 1 - 1e-6, **arguments}
    method = BOAT(num_classes=3, network=PixelNetwork, **settings)  # type: ignore[arg-type]
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    with torch.no_grad():
        method.standard.weight.copy_(torch.eye(3))
        nn.init.zeros_(method.standard.bias)
    method.labeled_prior.copy_(torch.tensor(PRIOR))
    method.standard_prior.probs.copy_(torch.tensor(STANDARD_PRIOR))
    method.balanced_prior.probs.copy_(torch.tensor(BALANCED_PRIOR))
    return method, logged


def probs(logits: list[float], shift: list[float] | None = None) -> list[float]:
    """Compute the softmax of shifted logits without torch."""
    powers = [math.exp(z + s) for z, s in zip(logits, shift or [0.0] * 3, strict=True)]
    return [power / sum(powers) for power in powers]


def labeled_loss(shift: list[float]) -> float:
    return -sum(math.log(probs(row, shift)[y]) for row, y in zip(LABELED, (0, 2), strict=True)) / 2


def strong_losses(row: int, label: int) -> float:
    return -sum(math.log(probs(views[row])[label]) for views in STRONG)


def test_one_unlabeled_row_by_hand() -> None:
    method, logged = made(lambda_u=3.0)
    loss = method.training_step(batch(1), 0)
    # Label 2 at strength 1 (0.1593, 0.2609, 0.5798); agreement (0.0657, 0.0881, 0.1450).
    assert method.scale.tolist() == pytest.approx([0.1480, 0.1045], abs=1e-4)
    assert logged["weight_balanced"].item() == pytest.approx(0.2053, abs=1e-4)
    balanced = labeled_loss([2 * math.log(p) for p in PRIOR]) + 3 * 0.2053 * strong_losses(0, 2) / 2
    assert logged["loss_balanced"].item() == pytest.approx(balanced, rel=2e-4)
    assert method.labeled_shift().tolist() == pytest.approx([1.1192, -1.1192, -1.8326], abs=1e-3)
    standard = labeled_loss([1.1192, -1.1192, -1.8326])
    assert logged["loss_labeled"].item() == pytest.approx(standard, rel=2e-4)
    assert logged["selected"].item() == 0
    assert loss.item() == pytest.approx(standard + balanced, rel=2e-4)


def test_all_rows_teach_the_balanced_head_and_confident_ones_the_standard_head() -> None:
    method, logged = made(tau_agreement=0.0)
    method.training_step(batch(), 0)
    assert logged["loss_unlabeled"].item() == pytest.approx(strong_losses(1, 1) / 4, rel=1e-5)
    # Without strength, the agreement is the largest squared probability: 0.4123^2 and 0.9951^2. The confidences at
    # strength 1 are 0.5798 and 1 / (1 + .5 / e^6 + 3 / e^6) = 0.9914.
    agreement = [max(probs(row)) ** 2 for row in WEAK]
    scale = [0.09 + 0.1 * (0.5798 + 0.9914) / 2, 0.09 + 0.1 * sum(agreement) / 2]
    assert method.scale.tolist() == pytest.approx(scale, abs=1e-4)
    weights = [value * scale[0] / scale[1] for value in agreement]
    expected = sum(
        weight * strong_losses(row, label) for row, weight, label in ((0, weights[0], 2), (1, weights[1], 1))
    )
    balanced = labeled_loss([2 * math.log(p) for p in PRIOR]) + expected / 4
    assert logged["loss_balanced"].item() == pytest.approx(balanced, rel=2e-4)


def test_both_means_move_before_they_are_used() -> None:
    method, logged = made(momentum=0.0, tau_labeled=1.0)
    method.training_step(batch(1), 0)
    now = probs(WEAK[0])
    assert method.standard_prior.probs.tolist() == pytest.approx(now, rel=1e-5)
    shift = [math.log(p) - math.log(q) for p, q in zip(PRIOR, now, strict=True)]
    assert logged["loss_labeled"].item() == pytest.approx(labeled_loss(shift), rel=1e-5)
    # The label is that of equal logits, so that the confidence is 1/3.
    assert method.scale[0].item() == pytest.approx(0.09 + 0.1 / 3, rel=1e-5)


def test_the_evaluated_logits_lack_the_running_mean_of_the_balanced_head() -> None:
    method, _ = made()
    images = pixels(WEAK)
    torch.testing.assert_close(method(images), torch.tensor(WEAK))
    method.eval()
    expected = torch.tensor(WEAK) + torch.tensor([1.8326, 2.0996, 2.7726])
    torch.testing.assert_close(method(images), expected, atol=1e-4, rtol=0)


def test_a_loaded_checkpoint_and_an_exported_file_predict_without_the_mean_as_well(tmp_path: Path) -> None:
    trainer = run(partial(BOAT, momentum=0.9), tmp_path, at_epoch_ends(tmp_path), limit_val_batches=0)
    loaded = tailmatch.load(tmp_path / "last.ckpt")
    assert isinstance(loaded, BOAT) and isinstance(trainer.lightning_module, BOAT)
    mean = loaded.balanced_prior.probs
    assert torch.equal(mean, trainer.lightning_module.balanced_prior.probs) and mean.std() > 1e-4
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    loaded.eval()
    with torch.no_grad():
        logits = loaded(images / 255)
        loaded.network.head.train()
        torch.testing.assert_close(logits, loaded(images / 255) - 2 * mean.log())
    export(str(tmp_path / "last.ckpt"), tmp_path / "boat.pt2")
    _, exported = torch.export.load(tmp_path / "boat.pt2").module()(images)
    torch.testing.assert_close(exported, logits)


def test_post_hoc_adjustment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="those of this BOAT are trained to be without it: leave it out"):
        run(BOAT, tmp_path, LogitAdjustment())


@pytest.mark.parametrize(
    "name", ["tau", "tau_balanced", "tau_labeled", "tau_agreement", "tau_evaluation", "momentum", "strong_views"]
)
def test_bad_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1"):
        made(**{name: -1})
