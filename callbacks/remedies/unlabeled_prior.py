"""Estimate the class totals of an unlabeled set from the confusions of a classifier."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.datamodules.output_files import check_free, write_json
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.inference.predict_set import rows_of_set
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages
from tailmatch.lightning_modules.training.distributed import sum_over_processes
from tailmatch.lightning_modules.training.run_folder import run_folder


class UnlabeledPriorEstimator(Callback):
    """Estimator of the class totals of the unlabeled set, which it writes to `prior.json` for `DARP(target=...)`.

    The estimate is DARP's (arXiv 2007.08844, section 3.3; bbuing9/DARP `train_base_estim.py`). It assumes that labeled
    and unlabeled images of a class look alike. The soft confusion matrix `C[j, k]` is the mean probability of class j
    on held-out images of class k, and `s` is the sum of the predictions on the unlabeled images, so that `C q = s`.
    After every epoch `q = C^-1 s` is computed with the trained (not the averaged) weights. Estimates with a negative
    entry or an ill-conditioned matrix are rejected, and the others are averaged. The file is written when the fit ends.

    Use it with `Supervised` and the data module's `labeled_holdout` (10 images per class in the paper). The authors'
    setting is `configs/experiments/darp_prior_cifar10.yaml`.

    Args:
        output: The path of the file. None: `prior.json` in the run folder.
        max_condition: The condition number of the matrix from which on an estimate is rejected, at least 1.

    Raises:
        SettingsError: `max_condition` is below 1.
    """

    def __init__(self, output: str | None = None, max_condition: float = 100.0) -> None:
        check_at_least("max_condition", max_condition, 1)
        self.output = None if output is None else Path(output)
        self.max_condition = max_condition
        self._accepted: list[dict[str, Any]] = []
        self._conditions: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there are held-out labeled images, and that the file can be written.

        Raises:
            SettingsError: No labeled images are held out, or the file exists.
        """
        if stage != "fit":
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not data.labeled_holdout:
            raise SettingsError(
                "UnlabeledPriorEstimator needs labeled images that are not trained on: set the data's "
                "labeled_holdout (10 per class in the paper)"
            )
        if self.output is not None:
            check_free(self.output, overwrite=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Estimate the class totals with the present weights.

        Raises:
            SettingsError: The method is not a classifier.
            NotFiniteError: A prediction is NaN.
        """
        if not isinstance(pl_module, ImageClassifier):
            raise SettingsError(f"UnlabeledPriorEstimator needs an image classifier, not {type(pl_module).__name__}")
        data = trainer.datamodule  # type: ignore[attr-defined]
        shape = (data.num_classes, data.num_classes)
        confusion = torch.zeros(shape, dtype=torch.float64, device=pl_module.device)
        totals = torch.zeros(data.num_classes, dtype=torch.float64, device=pl_module.device)

        def probs_of(images: Tensor | TaggedImages) -> Tensor:
            logits: Tensor = pl_module(images)
            return logits.double().softmax(dim=1)

        network = pl_module.network
        for probs, batch in rows_of_set(trainer, network, data.evaluation_loader(data.val), probs_of):
            confusion.index_add_(1, batch["target"].to(probs.device), probs.T)
        for probs, _ in rows_of_set(trainer, network, data.evaluation_loader(data.unlabeled), probs_of):
            totals += probs.sum(dim=0)
        estimate, condition = estimate_totals(sum_over_processes(confusion).cpu(), sum_over_processes(totals).cpu())
        self._conditions.append(condition)
        if condition < self.max_condition and (estimate >= 0).all():
            self._accepted.append({"epoch": trainer.current_epoch, "counts": estimate.tolist()})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average the accepted estimates and write the file.

        Raises:
            SettingsError: No estimate was accepted.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        folder = run_folder(trainer)
        if not self._accepted:
            raise SettingsError(
                f"no prior was written: of {len(self._conditions)} epochs none had a condition number below "
                f"{self.max_condition:g} (the best was {min(self._conditions, default=float('inf')):.1f}) and no "
                "negative entry; train longer, or hold out more labeled images"
            )
        counts: list[float] = torch.tensor([epoch["counts"] for epoch in self._accepted]).mean(dim=0).tolist()
        prior = {
            "counts": counts,
            "class_names": list(data.class_names),
            "unlabeled": len(data.unlabeled),
            "accepted_epochs": self._accepted,
            "condition_numbers": self._conditions,
            "checkpoint": str(folder / "checkpoints" / "last.ckpt"),
        }
        if trainer.is_global_zero:
            output = self.output or folder / "prior.json"
            write_json(output, prior)
            shown = ", ".join(f"{count:.0f}" for count in counts)
            print(f"unlabeled prior from {len(self._accepted)} epochs, written to {output}: {shown}")

    def state_dict(self) -> dict[str, Any]:
        """Give the estimates so far."""
        return {"accepted": self._accepted, "conditions": self._conditions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the estimates of a checkpoint."""
        self._accepted, self._conditions = state_dict["accepted"], state_dict["conditions"]


def estimate_totals(confusion: Tensor, predicted: Tensor) -> tuple[Tensor, float]:
    """Compute the class totals that explain the predictions: `q = C^-1 s`.

    Args:
        confusion: `float64 [K, K]`, the sum of the predicted probs (rows) over the images of each true class (columns).
        predicted: `float64 [K]`, s, the sum of the predicted probs over the unlabeled images.

    Returns:
        The totals `q [K]`, whose sum is that of s (NaN if C is singular), and the 2-norm condition number of C, whose
        columns are scaled to sum 1.
    """
    scaled = confusion / confusion.sum(dim=0, keepdim=True)
    condition = float(torch.linalg.cond(scaled))
    estimate, info = torch.linalg.solve_ex(scaled, predicted)
    if info:
        return torch.full_like(predicted, float("nan")), float("inf")
    return estimate, condition
