"""The estimate of the unlabeled prior."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything

from tailmatch.callbacks import UnlabeledPriorEstimator
from tailmatch.callbacks.remedies.unlabeled_prior import estimate_totals
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.networks import CifarResNet


def test_estimate_by_hand() -> None:
    # Class 0 is predicted (0.8, 0.2), class 1 (0.3, 0.7); 100 and 300 images give (170, 230).
    confusion = torch.tensor([[8.0, 1.5], [2.0, 3.5]], dtype=torch.float64)  # sums over 10 and 5 images
    estimate, condition = estimate_totals(confusion, torch.tensor([170.0, 230.0], dtype=torch.float64))
    assert estimate.tolist() == pytest.approx([100, 300])
    assert condition == pytest.approx(torch.linalg.cond(torch.tensor([[0.8, 0.3], [0.2, 0.7]])).item(), rel=1e-5)


def test_a_singular_matrix_is_no_estimate() -> None:
    estimate, condition = estimate_totals(torch.ones(2, 2).double(), torch.ones(2).double())
    assert condition > 1e8 or estimate.isnan().all()


def fit(folder: Path, method: type[Supervised] = Supervised, steps: int = 40, **kwargs: Any) -> None:
    seed_everything(0)
    data = Digits(
        class_counts=ListedCounts([40] * 10, [10, 20, 30, 40, 50, 50, 40, 30, 20, 10]),
        labeled_holdout=kwargs.pop("labeled_holdout", 10),
        labeled_batch_size=64,
        steps_per_epoch=steps,
    )
    model = method(num_classes=10, network=partial(CifarResNet, depth=8), ema_decay=None, mixup=0.75)
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        callbacks=[UnlabeledPriorEstimator(**kwargs)],
        enable_checkpointing=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)


def test_prior_of_the_digits_is_near_the_truth(tmp_path: Path) -> None:
    fit(tmp_path)
    prior = json.loads((tmp_path / "prior.json").read_text())
    assert sum(prior["counts"]) == pytest.approx(300, abs=0.1) and prior["unlabeled"] == 300
    truth = [10, 20, 30, 40, 50, 50, 40, 30, 20, 10]
    error = sum(abs(a - b) for a, b in zip(prior["counts"], truth, strict=True)) / 300
    uniform = sum(abs(30 - b) for b in truth) / 300
    assert error < uniform / 2
    assert len(prior["condition_numbers"]) == 3 and prior["accepted_epochs"]


class Watched(Supervised):
    """Has a frozen layer in evaluation mode; after the given number of steps its weights are NaN."""

    spoiled_after = 10**6

    def training_step(self, *args: Any) -> Any:
        if self.global_step == 0:
            self.frozen.eval()
        assert self.network.training and not self.frozen.training
        return super().training_step(*args)

    def on_train_batch_end(self, *args: Any) -> None:
        if self.global_step == self.spoiled_after:
            torch.nn.init.constant_(self.network.head.weight, float("nan"))  # type: ignore[arg-type]

    @property
    def frozen(self) -> torch.nn.Module:
        return next(m for m in self.network.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_modes_stay_and_nan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no prior was written: of 3 epochs"):  # it came to all of them
        fit(tmp_path, method=Watched, steps=5, max_condition=1.0)
    monkeypatch.setattr(Watched, "spoiled_after", 5)
    with pytest.raises(ValueError, match="predictions are NaN"):
        fit(tmp_path, method=Watched, steps=5)


def test_no_accepted_epoch_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no prior was written: of 3 epochs none had a condition number below 1 "):
        fit(tmp_path, max_condition=1.0)
    assert not (tmp_path / "prior.json").exists()


def test_bad_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set the data's labeled_holdout"):
        fit(tmp_path, labeled_holdout=0)
    (tmp_path / "there.json").write_text("{}")
    with pytest.raises(ValueError, match="there.json exists"):
        fit(tmp_path, output=str(tmp_path / "there.json"))
