"""The table of all validations of a fit, also of one that was stopped and continued."""

import csv
import json
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.demos.boring_classes import BoringModel

from tailmatch.callbacks.reports.metrics_table import MetricsTable


class Logging(BoringModel):
    """A module that logs its step, and another number in its second epoch."""

    def on_validation_epoch_end(self) -> None:
        """Log."""
        self.log("val/step", float(self.global_step) / 3)
        if self.current_epoch == 1:
            self.log("val/rare", 1.0)


def fit(folder: Path, epochs: int, **options: Any) -> list[dict[str, str]]:
    """Fit for some epochs of two steps, and read the table."""
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        max_epochs=epochs,
        limit_train_batches=2,
        limit_val_batches=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[MetricsTable(), ModelCheckpoint(folder, "{epoch}", save_top_k=-1, auto_insert_metric_name=False)],
    )
    trainer.fit(Logging(), **options)
    return list(csv.DictReader((folder / "metrics.csv").open(newline="")))


def test_each_validation_is_a_row_once(tmp_path: Path) -> None:
    whole = fit(tmp_path, 3)
    assert [(row["step"], row["epoch"], row["val/step"]) for row in whole] == [
        ("2", "1", "0.666666687"),
        ("4", "2", "1.33333337"),
        ("6", "3", "2"),
    ]
    assert [row["val/rare"] for row in whole][:2] == ["", "1"]
    again = fit(tmp_path, 3, ckpt_path=tmp_path / "0.ckpt")
    assert [row["step"] for row in again] == ["2", "4", "6"] and again[0] == whole[0]
    assert [row["step"] for row in fit(tmp_path, 1)] == ["2"]  # another run


def test_seconds_count_what_was_trained_after_the_last_validation(tmp_path: Path) -> None:
    fit(tmp_path, 1)
    facts = {"seconds": 1000.0, "timed_steps": 2, "steps": 2}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    again = fit(tmp_path, 2, ckpt_path=tmp_path / "0.ckpt")
    assert float(again[0]["seconds"]) < 1000 <= float(again[1]["seconds"])
