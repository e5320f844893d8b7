"""A metric that nothing logs is refused before the training, or at its first step."""

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from tailmatch.datamodules.arguments import SettingsError
from tests.lightning_modules.training.test_length import STEPS_PER_EPOCH, fit

VALIDATED = {"max_epochs": 1, "limit_val_batches": 1, "log_every_n_steps": 1}


def early(monitor: str, **options: Any) -> EarlyStopping:
    return EarlyStopping(monitor, **options)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (early("val/acc"), r"EarlyStopping.monitor is 'val/acc', which nothing logs; there are val/top1, "),
        (early("val_loss"), r"Did you mean: val/loss\?"),
        (ModelCheckpoint(monitor="val/top2"), r"ModelCheckpoint.monitor is 'val/top2'(.|\n)*Did you mean: val/top5\?"),
        (early("val/many_shot", mode="max"), "'val/many_shot', which nothing logs"),  # each class has two images
        (early("val/top1"), "EarlyStopping.mode is min, .* as val/top1 grows; it must be max"),
        (early("train/los"), r"'train/los', which nothing logs; there are train/loss, train/lr\n.*: train/loss"),
    ],
    ids=["a metric", "another spelling", "a checkpoint", "a group without a class", "a mode", "a training number"],
)  # fmt: skip
def test_a_name_that_nothing_logs_is_refused(callback: Callback, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        fit(tmp_path, callback, **{**VALIDATED, "enable_checkpointing": isinstance(callback, ModelCheckpoint)})


def test_a_training_number_that_is_logged_too_rarely_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"log_every_n_steps is 50, and an epoch has {STEPS_PER_EPOCH} steps"):
        fit(tmp_path, early("train/loss"), max_epochs=1)


@pytest.mark.parametrize("monitor", ["val/loss", "train/loss", "val/few_shot"])
def test_a_name_that_is_logged_is_watched(monitor: str, tmp_path: Path) -> None:
    callback = early(monitor, mode="min" if "loss" in monitor else "max")
    trainer, _ = fit(tmp_path, callback, **VALIDATED)
    assert trainer.global_step == STEPS_PER_EPOCH and callback.best_score.isfinite()


def test_what_a_callback_of_the_user_logs_may_be_watched(tmp_path: Path) -> None:
    class Mine(EarlyStopping):
        def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.log("mine", 1.0)

    mine = Mine("mine")
    fit(tmp_path, mine, **VALIDATED)
    assert mine.best_score == 1
