"""The length of a training that is known beforehand is the one that Lightning makes of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn

from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.networks import Network
from tailmatch.lightning_modules.training.length import is_last_epoch, total_batches
from tailmatch.lightning_modules.weightings import CurriculumThresholds, FrequencyWeights, HeadShareThresholds

STEPS_PER_EPOCH = 7
ENDLESS = {"max_epochs": -1}


class Tiny(Network):
    """One linear layer on the mean of the pixels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, feature_dim=1, channels_last=False)
        self.head = nn.Linear(1, num_classes)

    def _features(self, normalized: Tensor) -> Tensor:
        return normalized.mean(dim=(1, 2, 3))[:, None]


class Counter(Callback):
    """Counts epochs, and notes the length that is expected when the fit begins, and which epoch is to be the last."""

    expected: tuple[float, float] | None = None
    epochs = batches = 0

    def __init__(self) -> None:
        self.last: list[bool] = []

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.expected = (pl_module.total_steps(), pl_module.total_epochs())

    def on_train_epoch_start(self, *args: Any) -> None:
        self.epochs += 1

    def on_train_batch_start(self, *args: Any) -> None:
        self.batches += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.last.append(is_last_epoch(trainer))


class CountedSGD(torch.optim.SGD):
    """Counts its steps."""

    steps = 0

    def step(self, *args: Any, **kwargs: Any) -> Any:
        self.steps += 1
        return super().step(*args, **kwargs)


def fit(folder: Path, counter: Callback, **limits: Any) -> tuple[Trainer, Any]:
    data = Digits(
        class_counts=ListedCounts([2] * 10), labeled_batch_size=2, steps_per_epoch=STEPS_PER_EPOCH, eval_batch_size=50
    )
    model = Supervised(num_classes=10, network=Tiny, ema_decay=None, optimizer=lambda p: CountedSGD(p, lr=0.1))
    options: dict[str, Any] = {"enable_checkpointing": False, "limit_val_batches": 0, **limits}
    trainer = Trainer(
        accelerator="cpu", logger=False, use_distributed_sampler=False, default_root_dir=folder, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[counter], **options,
    )  # fmt: skip
    trainer.fit(model, data)
    return trainer, model


LIMITS: list[tuple[dict[str, Any], int, int]] = [
    ({"max_epochs": 3}, 21, 3),
    ({"max_steps": 10}, 10, 2),
    ({"max_steps": 14}, 14, 2),
    ({"max_steps": 10, **ENDLESS}, 10, 2),
    ({"max_steps": 10, "max_epochs": 1}, 7, 1),  # the epochs end it
    ({"max_steps": 10, "max_epochs": 5}, 10, 2),
    ({"max_epochs": 2, "limit_train_batches": 3}, 6, 2),
    ({"max_epochs": 2, "limit_train_batches": 1}, 2, 2),
    ({"max_epochs": 2, "limit_train_batches": 1.0}, 14, 2),
    ({"max_epochs": 2, "limit_train_batches": 0.5}, 6, 2),  # 3.5 batches are 3
    ({"max_epochs": 2, "limit_train_batches": 50}, 14, 2),
    ({"max_steps": 10, "limit_train_batches": 3}, 10, 4),
    ({"max_steps": 10, "max_epochs": 3, "limit_train_batches": 0.5}, 9, 3),
    ({"max_epochs": 2, "accumulate_grad_batches": 2}, 8, 2),  # the seventh batch steps alone
    ({"max_epochs": 3, "accumulate_grad_batches": 10}, 3, 3),
    ({"max_steps": 5, "accumulate_grad_batches": 3}, 5, 2),
    ({"max_steps": 5, "max_epochs": 3, "accumulate_grad_batches": 3, "limit_train_batches": 2}, 3, 3),
    ({"max_epochs": 2, "overfit_batches": 2}, 4, 2),
    ({"max_epochs": 2, "overfit_batches": 2.0}, 14, 2),  # which Lightning takes for a share
    ({"max_epochs": 2, "overfit_batches": 0.3}, 4, 2),
    ({"fast_dev_run": True}, 1, 1),
    ({"fast_dev_run": 3, "accumulate_grad_batches": 2, "max_epochs": 5}, 2, 1),
    ({"max_time": "00:01:00:00", "max_epochs": 2}, 14, 2),
    ({"max_time": "00:01:00:00", "max_steps": 9}, 9, 2),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("limits", "steps", "epochs"), LIMITS, ids=lambda value: str(value))
def test_it_is_what_lightning_does(limits: dict[str, Any], steps: int, epochs: int, tmp_path: Path) -> None:
    counter = Counter()
    trainer, model = fit(tmp_path, counter, **limits)
    assert (trainer.optimizers[0].steps, trainer.global_step, counter.epochs) == (steps, steps, epochs)  # type: ignore[attr-defined]
    assert counter.expected == (steps, epochs)
    assert counter.last == [epoch == epochs for epoch in range(1, epochs + 1)]
    assert model.lr_schedulers().total_steps == steps and total_batches(trainer) == counter.batches


def test_without_a_limit_lightning_trains_a_thousand_epochs(tmp_path: Path) -> None:
    class Stopped(Counter):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            trainer.should_stop = True

    counter = Stopped()
    with pytest.warns(UserWarning, match="Setting it to 1000 epochs"):
        trainer, _ = fit(tmp_path, counter)
    assert trainer.max_epochs == 1000 and counter.expected == (7000, 1000)


def test_the_rate_falls_to_its_end_where_the_epochs_end_the_training(tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, Counter(), max_steps=1000, max_epochs=2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.19509032201612825)  # cos(7 pi / 16)


@pytest.mark.parametrize("limits", [ENDLESS, {"max_time": "00:01:00:00"}])
def test_a_training_without_a_known_end_has_no_schedule(limits: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trainer.max_steps is -1 and trainer.max_epochs -1; set one of them"):
        fit(tmp_path, Counter(), **limits)


def test_an_interval_that_the_training_does_not_complete_is_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    trainer: Any = SimpleNamespace(
        datamodule=SimpleNamespace(steps_per_epoch=7), limit_train_batches=1.0, accumulate_grad_batches=2,
        max_epochs=2, max_steps=-1,
    )  # fmt: skip
    for weighting in (HeadShareThresholds(every=7, start=6), FrequencyWeights(13), CurriculumThresholds()):
        weighting.check_length(trainer)
    assert not recwarn
    with pytest.warns(UserWarning, match="the sum of start and every is 14, and the training has 14 steps; lower it"):
        HeadShareThresholds(every=7, start=7).check_length(trainer)
    with pytest.warns(UserWarning, match="the weights of pseudo-labels will never change: every is 14"):
        FrequencyWeights(14).check_length(trainer)
