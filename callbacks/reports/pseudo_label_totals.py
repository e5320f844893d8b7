"""Keep the class totals of the pseudo-labels of each epoch as a file of the run, `pseudo_label_totals.json`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Trainer
from torch import Tensor

from tailmatch.datamodules.output_files import write_json
from tailmatch.lightning_modules.metrics import third_groups
from tailmatch.lightning_modules.training.run_folder import run_folder

FILE = "pseudo_label_totals.json"
"""The name of the file in the run folder."""

SHARES = ("raw", "refined", "target", "truth")
"""What is kept of each class, as a share of all; `truth` only if the true classes are known."""


class PseudoLabelTotals:
    """The numbers of all epochs of a run: `epochs` has a row of each, `last` the shares of each class in the last one.

    A row has the epoch (from 1), the step, the scalars of `PseudoLabelMonitor` without those of single classes (null
    for infinity), and for `many`, `medium` and `few` the shares of their classes together (`SHARES`).
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}

    def begin(self, trainer: Trainer) -> None:
        """Begin with no epoch, or with those of the run that is resumed."""
        self.epochs, self.last = [], {}
        if trainer.ckpt_path is not None and trainer.is_global_zero:
            self.resume(run_folder(trainer) / FILE, trainer.global_step)

    def keep(
        self, trainer: Trainer, scalars: Mapping[str, float], counts: Mapping[str, Tensor], target: Tensor
    ) -> None:
        """Add the present epoch and write the file, on process 0 of a run with a logger.

        Args:
            trainer: The trainer of the run.
            scalars: The scalars of the epoch.
            counts: Numbers of pseudo-labels `[K]`, `raw` and `refined`, and `truth`, all zero if it is not known.
            target: The class totals to compare with, `[K]`.
        """
        if not (trainer.is_global_zero and trainer.loggers):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        rows = {"raw": counts["raw"], "refined": counts["refined"], "target": target, "truth": counts["truth"]}
        shares = {name: row / row.sum() for name, row in rows.items() if row.sum()}
        self.add((trainer.current_epoch + 1, trainer.global_step), scalars, shares, torch.tensor(data.annotated_counts))
        self.write(run_folder(trainer) / FILE, data.class_names)

    def resume(self, file: Path, step: int) -> None:
        """Read the rows of the run that is continued, up to its step; none if there is no such file."""
        if not file.is_file():
            return
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))["epochs"]
            self.epochs = [row for row in rows if row["step"] <= step]
        except (ValueError, KeyError, TypeError) as error:
            rank_zero_warn(f"{file} is not as it was written ({error}): it begins anew")

    def add(
        self, place: tuple[int, int], scalars: Mapping[str, float], shares: Mapping[str, Tensor], groups: Tensor
    ) -> None:
        """Add an epoch.

        Args:
            place: The epoch, from 1, and the step.
            scalars: The scalars of the epoch.
            shares: Shares `[K]` by the names of `SHARES`.
            groups: The number of labeled images of each class, `[K]`, by which classes are grouped.
        """
        epoch, step = place
        row: dict[str, Any] = {"epoch": epoch, "step": step}
        row |= {
            name.removeprefix("pseudo/"): value if math.isfinite(value) else None
            for name, value in scalars.items()
            if "_class/" not in name
        }
        for group, members in third_groups(groups).items():
            row[group] = {name: float(share[members].sum()) for name, share in shares.items()}
        self.epochs = [*(old for old in self.epochs if old["step"] < step), row]
        self.last = {name: share.tolist() for name, share in shares.items()}

    def write(self, file: Path, class_names: Sequence[str]) -> None:
        """Write the file, which is whole at any time."""
        write_json(file, {"class_names": list(class_names), "epochs": self.epochs, "last": self.last})
