"""A trainer that would train nothing is refused when the fit begins."""

from pathlib import Path
from typing import Any

import pytest

from tailmatch.callbacks.checkpoints import BestCheckpoint
from tailmatch.datamodules.arguments import SettingsError
from tests.lightning_modules.training.test_length import STEPS_PER_EPOCH, Counter, fit


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_epochs": 0}, "trainer.max_epochs is 0, so that nothing would be trained; it must be above 0"),
        ({"max_epochs": 1, "max_steps": 0}, "trainer.max_steps is 0"),
        ({"max_epochs": 1, "limit_train_batches": 0}, "trainer.limit_train_batches is 0"),
        ({"max_epochs": 1, "limit_train_batches": 0.0}, r"trainer.limit_train_batches is 0\.0"),
        ({"max_epochs": 1, "accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches is 0; it must be at least"),
        ({"max_epochs": 1, "check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch is 0; it must be at least"),
        ({"max_epochs": 1, "gradient_clip_val": -1}, "trainer.gradient_clip_val is -1; it must be at least 0"),
        ({"max_epochs": 1, "val_check_interval": 8}, "trainer.val_check_interval is 8, and an epoch has 7 steps"),
        ({"max_epochs": 1, "val_check_interval": 4, "limit_train_batches": 3}, "and an epoch has 3 steps"),
        ({"max_epochs": 1, "val_check_interval": 0}, "trainer.val_check_interval is 0"),
        ({"max_epochs": 1, "precision": "bf16-true"}, "trainer.precision is bf16-true, .* bf16-mixed or 32-true"),
    ],
)
def test_what_would_train_nothing_is_refused(limits: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        fit(tmp_path, Counter(), **limits)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_epochs": -1, "max_steps": 1},
        {"max_epochs": 1, "val_check_interval": STEPS_PER_EPOCH, "gradient_clip_val": 0},
        {"max_epochs": 1, "val_check_interval": 50, "check_val_every_n_epoch": None},
        {"max_epochs": 1, "overfit_batches": 0.0},
    ],
)
def test_other_trainers_train(limits: dict[str, Any], tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, Counter(), **limits)
    assert trainer.global_step > 0


def test_a_best_checkpoint_that_will_not_be_is_announced(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, monitor="val/top1", filename="best")
    with pytest.warns(UserWarning, match=r"no best\.ckpt will be saved, .*: limit_val_batches is 0"):
        fit(tmp_path, best, max_epochs=1, enable_checkpointing=True, limit_val_batches=0)
    with pytest.warns(UserWarning, match="check_val_every_n_epoch is 3 and the training has 2 epochs"):
        fit(tmp_path, best, max_epochs=2, enable_checkpointing=True, limit_val_batches=1.0, check_val_every_n_epoch=3)
