"""A trainer that would train nothing is refused when the fit begins."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
)

from tailmatch.callbacks.checkpoints import BestCheckpoint
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.training.trainer_settings import check_precision
from tests.lightning_modules.training.test_length import STEPS_PER_EPOCH, Counter, Tiny, fit


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
        (
            {"max_epochs": 1, "val_check_interval": 3, "accumulate_grad_batches": 2},
            "is 3, which is 3 batches, and trainer.accumulate_grad_batches is 2: a validation would be within a step",
        ),
        (
            {"max_epochs": 2, "val_check_interval": 0.5, "accumulate_grad_batches": 2},
            "is 0.5, which is 3 batches, and",
        ),
        (
            {"max_epochs": 2, "val_check_interval": 4, "check_val_every_n_epoch": None, "accumulate_grad_batches": 2},
            "is 4, which is 4 batches, over epochs of 7, and",
        ),
        ({"max_epochs": 1, "precision": "bf16-true"}, "trainer.precision is bf16-true, .* bf16-mixed or 32-true"),
        ({"max_epochs": 1, "precision": "64-true"}, "trainer.precision is 64-true"),
    ],
)
def test_what_would_train_nothing_is_refused(limits: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        fit(tmp_path, Counter(), **limits)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (LearningRateFinder(), "LearningRateFinder .*model.optimizer.lr"),
        (BatchSizeFinder(), "BatchSizeFinder .*data.labeled_batch_size"),
        (GradientAccumulationScheduler({0: 1, 1: 2}), "GradientAccumulationScheduler .*accumulate_grad_batches"),
        (StochasticWeightAveraging(0.1), "StochasticWeightAveraging .*ema_decay"),
        (EMAWeightAveraging(), "EMAWeightAveraging .*ema_decay"),
        (ModelPruning("l1_unstructured", amount=0.5), "ModelPruning .*channels-last"),
        (BackboneFinetuning(), "BackboneFinetuning .*ClassifierRetraining"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_callbacks_of_lightning_that_do_not_work_are_refused(callback: Callback, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        fit(tmp_path, callback, max_epochs=1)


def test_an_evaluation_in_half_precision_is_refused_before_data_are_read(tmp_path: Path) -> None:
    data, model = Digits(class_counts=ListedCounts([2] * 10)), Supervised(num_classes=10, network=Tiny)
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, precision="16-true")
    with pytest.raises(SettingsError, match="precision is 16-true"):
        trainer.test(model, data)
    assert not hasattr(data, "test")


@pytest.mark.parametrize(
    ("capable", "warnings"), [({"avx512_bf16": True}, 0), ({"avx2": True, "avx512_bf16": False}, 1), ({}, 0)]
)
def test_bfloat16_without_instructions_is_announced(
    capable: dict[str, bool], warnings: int, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable, raising=False)
    check_precision(Trainer(accelerator="cpu", logger=False, precision="bf16-mixed", barebones=True))
    assert len([w for w in recwarn if "no instructions for bfloat16" in str(w.message)]) == warnings


@pytest.mark.parametrize(
    "limits",
    [
        {"max_epochs": -1, "max_steps": 1},
        {"max_epochs": 1, "val_check_interval": STEPS_PER_EPOCH, "gradient_clip_val": 0},
        {"max_epochs": 1, "val_check_interval": 50, "check_val_every_n_epoch": None},
        {"max_epochs": 1, "overfit_batches": 0.0},
        {"max_epochs": 1, "val_check_interval": 4, "accumulate_grad_batches": 2},
        {"max_epochs": 1, "accumulate_grad_batches": 3},
    ],
)
def test_other_trainers_train(limits: dict[str, Any], tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, Counter(), **limits)
    assert trainer.global_step > 0


def test_a_best_checkpoint_that_will_not_be_is_announced(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, monitor="val/top1", filename="best")
    with pytest.warns(UserWarning, match=r"no best\.ckpt will be saved, .*: limit_val_batches is 0"):
        fit(tmp_path, best, max_epochs=1, enable_checkpointing=True, limit_val_batches=0)
    with pytest.warns(UserWarning, match="max_steps is 6, and the first one would be after 7 steps"):
        fit(tmp_path, best, max_steps=6, enable_checkpointing=True, limit_val_batches=1.0)
    with pytest.warns(UserWarning, match="check_val_every_n_epoch is 3 and the training has 2 epochs"):
        fit(tmp_path, best, max_epochs=2, enable_checkpointing=True, limit_val_batches=1.0, check_val_every_n_epoch=3)
