"""Shifts of the logits in the losses: by hand, in every method that makes pseudo-labels, and where they are missing."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.lightning_modules import CPG, DASO, SCSSL, DyTrim, FixMatch, MetaExpert, SemiSupervisedClassifier
from tailmatch.lightning_modules.bases.mixing import MixingClassifier
from tests.contract import METHODS, each, run
from tests.lightning_modules.pixel_network import PixelNetwork, image


class Shift(Callback):
    """A remedy that shifts both losses, and notes the losses of the steps."""

    balances = False

    def __init__(self, labeled: Tensor | None, unlabeled: Tensor | None) -> None:
        self.shifts = labeled, unlabeled
        self.losses: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, SemiSupervisedClassifier)
        pl_module.add_shift(self)

    def labeled_shift(self) -> Tensor | None:
        return self.shifts[0]

    def unlabeled_shift(self) -> Tensor | None:
        return self.shifts[1]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def test_fixmatch_by_hand() -> None:
    method = FixMatch(num_classes=3, network=PixelNetwork)
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    batch = {
        "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([0])},
        "unlabeled": {"weak": image(0, 5, 0), "strong": [image(0, 1, 0)], "index": torch.tensor([0])},
    }
    for shift in (
        Shift(torch.tensor([0.0, 2.0, 0.0]), None),
        Shift(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0, 3.0])),
    ):
        method.add_shift(shift)
        method.add_shift(shift)  # has no effect
    method.training_step(batch, 0)
    # They add up to (1, 2, 0) for the labeled image, whose logits are then (2, 2, 0), and to (0, 0, 3).
    assert logged["loss_labeled"].item() == pytest.approx(-math.log(math.e**2 / (2 * math.e**2 + 1)), rel=1e-5)
    assert logged["loss_unlabeled"].item() == pytest.approx(-math.log(math.e / (math.e + 1 + math.e**3)), rel=1e-5)


@pytest.mark.parametrize("method", each(kind for kind in METHODS if issubclass(kind, SemiSupervisedClassifier)))
def test_every_method_shifts_both_losses(method: type[SemiSupervisedClassifier], tmp_path: Path) -> None:
    def losses(labeled: Tensor | None, unlabeled: Tensor | None) -> list[float]:
        shift = Shift(labeled, unlabeled)
        at_once = {"rampup_steps": 0} if issubclass(method, MixingClassifier) else {}
        steps = 5 if issubclass(method, CPG | DASO | SCSSL | DyTrim | MetaExpert) else 2  # these begin something later
        options: dict[str, Any] = {"limit_val_batches": 0, "enable_checkpointing": False}
        run(partial(method, **at_once), tmp_path, shift, max_steps=steps, **options)
        return shift.losses[:2]

    constant, rising = torch.full((10,), 3.0), torch.arange(10.0)
    plain = losses(None, None)
    assert losses(constant, constant) == pytest.approx(plain, rel=1e-4)  # softmax does not see a constant
    assert abs(losses(rising, None)[0] - plain[0]) > 0.1
    assert losses(None, rising)[1] != pytest.approx(plain[1], rel=1e-4)  # the first step may have no unlabeled loss


class Unshifted(FixMatch):
    """A method whose step asks for no shift."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.pseudo_labels(self.network(batch["unlabeled"]["weak"]).softmax(dim=1), batch["unlabeled"]["index"])
        loss = self.cross_entropy(self.network(batch["labeled"]["weak"]), batch["labeled"]["target"]).mean()
        self.track(loss=loss)
        return loss


def test_a_method_that_applies_no_shift_refuses_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Shift shifts the logits in the losses, and Unshifted does not apply shifts"):
        run(Unshifted, tmp_path, Shift(torch.zeros(10), None))
