"""Report the mean and standard deviation of the last evaluations, as DARP, MixMatch and its successors do."""

import json
import statistics
from collections import deque
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from tailmatch.callbacks.reports.scalars import log_scalars
from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.datamodules.output_files import write_json
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.training.run_folder import run_folder


class LastEvaluations(Callback):
    """Report of the mean and standard deviation of every metric over the last n validations.

    bbuing9/DARP `train.py` reports the mean of the last 20 evaluations on the test images, one per epoch; with
    `data.validate_on_test` this callback does the same. Nothing is selected by it, while `best.ckpt` is the best of all
    validations. At the end of a fit the numbers are logged as `last<n>/<metric>/mean` and `last<n>/<metric>/std`, and
    written to `last_evaluations.json` in the run folder. A later test copies them into `test_metrics.json`.

    Args:
        n: The number of validations.

    Raises:
        SettingsError: `n` is below 1.
    """

    def __init__(self, n: int = 20) -> None:
        check_count("n", n)
        self.n = n
        self._kept: deque[dict[str, float]] = deque(maxlen=n)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a validation of a fit."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and isinstance(pl_module, ImageClassifier):
            scalars = pl_module.evaluations["val"].scalars
            self._kept.append({name: value.item() for name, value in scalars.items()})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and write the summary."""
        if not self._kept or not trainer.is_global_zero:
            return
        summary = self.summary()
        scalars = {
            f"last{self.n}/{name}/{kind}": value
            for name, kinds in summary["metrics"].items()
            for kind, value in kinds.items()
        }
        log_scalars(trainer, scalars)
        write_json(run_folder(trainer) / "last_evaluations.json", summary)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the summary of the fit into `test_metrics.json`.

        Raises:
            SettingsError: The summary is not JSON.
        """
        folder = run_folder(trainer)
        record, summary = folder / "test_metrics.json", folder / "last_evaluations.json"
        if trainer.is_global_zero and record.exists() and summary.exists():
            content = json.loads(record.read_text(encoding="utf-8"))
            try:
                content["last_evaluations"] = json.loads(summary.read_text(encoding="utf-8"))
            except ValueError as error:
                raise SettingsError(f"{summary} is not JSON: {error}; remove it, a fit writes a new one") from error
            write_json(record, content)

    def summary(self) -> dict[str, Any]:
        """Compute the number of evaluations, and the mean and sample standard deviation (0 for one) of every metric."""
        metrics = {}
        for name in self._kept[-1]:
            values = [evaluation[name] for evaluation in self._kept if name in evaluation]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            metrics[name] = {"mean": statistics.mean(values), "std": spread}
        return {"evaluations": len(self._kept), "metrics": metrics}

    def state_dict(self) -> dict[str, Any]:
        """Give the kept evaluations."""
        return {"kept": list(self._kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the evaluations of a checkpoint."""
        self._kept = deque(state_dict["kept"], maxlen=self.n)
