"""Write the numbers of each validation of a fit as a table, `metrics.csv` in the run folder."""

import csv
import time
from contextlib import suppress
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from tailmatch.callbacks.reports.run_facts import FILE, read_facts, timed
from tailmatch.datamodules.output_files import whole_file
from tailmatch.lightning_modules.training.run_folder import run_folder


class MetricsTable(Callback):
    """Report of all numbers of each validation of a fit as `metrics.csv`: one row each, with its step and epoch.

    `seconds` is the time since the training began, without the time between a stop and a resume, as in the `run.json`
    of `RunFacts`. Without that file, what was trained between the last validation and a stop does not count. The
    numbers of the training are those that were logged last. A resumed fit keeps the rows up to its step. Each
    validation replaces the file, which is whole at any time.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, str]] = []
        self._began = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the rows of the run that is continued."""
        file = self._file(trainer)
        self._rows = []
        if trainer.ckpt_path is not None and trainer.is_global_zero and file.is_file():
            with file.open(newline="", encoding="utf-8") as lines:
                self._rows = [row for row in csv.DictReader(lines) if _step(row) <= trainer.global_step]
        seconds = 0.0
        if trainer.ckpt_path is not None and trainer.is_global_zero:
            seconds, _ = timed(read_facts(run_folder(trainer) / FILE), trainer.global_step)
        self._began = time.monotonic() - max(seconds, _seconds(self._rows))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row, and write the file."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        row = {"step": str(trainer.global_step), "epoch": str(trainer.current_epoch + 1)}
        row["seconds"] = f"{time.monotonic() - self._began:.1f}"
        row |= {name: f"{float(value):.9g}" for name, value in sorted(trainer.callback_metrics.items())}
        self._rows = [*(old for old in self._rows if _step(old) != trainer.global_step), row]
        names = dict.fromkeys(name for each in self._rows for name in each)
        with whole_file(self._file(trainer)) as partial, open(partial, "w", newline="", encoding="utf-8") as lines:
            table = csv.DictWriter(lines, list(names), restval="", lineterminator="\n")
            table.writeheader()
            table.writerows(self._rows)

    def _file(self, trainer: Trainer) -> Path:
        return run_folder(trainer) / "metrics.csv"


def _step(row: dict[str, str]) -> int:
    """Read the step of a row; one that has none, as after an edit by hand, is dropped by a resume."""
    text = row.get("step") or ""
    return int(text) if text.isdigit() else 2**63


def _seconds(rows: list[dict[str, str]]) -> float:
    """Read the seconds of the last row; 0 if it has none, as one of a former version."""
    with suppress(ValueError):
        return float((rows[-1].get("seconds") if rows else None) or 0)
    return 0.0
