"""Report the class totals and the accuracy of the pseudo-labels, beside their target."""

import math
from functools import partial
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.reports import figures
from tailmatch.callbacks.reports.class_figures import pseudo_label_figure
from tailmatch.callbacks.reports.pseudo_label_totals import PseudoLabelTotals
from tailmatch.callbacks.reports.scalars import log_scalars
from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.lightning_modules import SemiSupervisedClassifier
from tailmatch.lightning_modules.pseudo_labels.class_prior import check_target, is_known, unlabeled_totals
from tailmatch.lightning_modules.training.distributed import place, sum_over_processes
from tailmatch.lightning_modules.training.length import is_last_epoch

ROWS = ("raw", "refined", "selected", "truth", "raw_correct", "refined_correct", "selected_correct")
"""The counts of each class: `raw`, `refined` and `selected` by the pseudo-label, the others by the true class.

Those of `selected` and `selected_correct` are sums of weights."""


class PseudoLabelMonitor(Callback):
    """Report of the pseudo-labels of each epoch beside their target, with or without a remedy.

    Raw pseudo-labels are those before refinement, refined ones those after it; without a remedy they are the same. The
    callback logs these scalars in every epoch:

    * `pseudo/kl_raw`, `pseudo/kl_refined`: the KL divergence, in nats, of the class totals from the target;
    * `pseudo/selected`: the mean weight of the pseudo-labels in the loss: of a method that selects, the share that is
      selected;
    * `pseudo/accuracy_raw`, `pseudo/accuracy_refined`, `pseudo/accuracy_selected` and, for up to 30 classes,
      `pseudo/accuracy_refined_class/<name>`: the accuracy, if the true classes of the unlabeled images are known. That
      of `selected` is weighted as the loss is.

    The figure `pseudo/labels` shows the totals beside the target and the truth, and the accuracy of each class. In a
    run with a logger, `pseudo_label_totals.json` in the run folder has the numbers of all epochs, for the run's report.

    Args:
        target: The class totals to compare with: a list of K numbers, the path of a `prior.json` written by
            `UnlabeledPriorEstimator`, or `oracle` (the true totals). None: the target of the run's remedy (`DARP`,
            `DistributionAlignment`, or any refiner with `target_totals`; of several, the last one's), or the labeled
            counts if no remedy has a target.
        every_n_epochs: The number of epochs between two figures. There is always one after the last epoch.

    Raises:
        SettingsError: `every_n_epochs` is below 1.
    """

    def __init__(self, target: str | list[float] | None = None, every_n_epochs: int = 10) -> None:
        check_count("every_n_epochs", every_n_epochs)
        check_target(target)
        self.target = target
        self.every_n_epochs = every_n_epochs
        self._target_totals: Tensor | None = None  # only if a target is given
        self._truth: Tensor | None = None
        self._counts = torch.empty(0)
        self._kept = PseudoLabelTotals()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method.

        Raises:
            SettingsError: The method has no pseudo-label stage, or `target` is not valid.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, SemiSupervisedClassifier):
            name = type(pl_module).__name__
            raise SettingsError(
                f"PseudoLabelMonitor needs a method that makes pseudo-labels in each step (FixMatch ...), and {name} "
                "does not: leave it out of trainer.callbacks"
            )
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._target_totals = None if self.target is None else unlabeled_totals(self.target, data)
        self._truth = data.unlabeled.targets if is_known(data) else None
        self._counts = torch.zeros(len(ROWS), data.num_classes, dtype=torch.float64)
        pl_module.add_observer(self)

    def observe(self, raw: Tensor, refined: Tensor, weights: Tensor, index: Tensor) -> None:
        """Count the pseudo-labels of a step, on the device; see `PseudoLabelObserver`."""
        self._counts = self._counts.to(raw.device)
        labels = {"raw": raw.argmax(dim=1), "refined": refined.argmax(dim=1)}
        everything = torch.ones_like(weights)
        self._count("raw", labels["raw"], everything)
        self._count("refined", labels["refined"], everything)
        self._count("selected", labels["refined"], weights)
        if self._truth is not None:
            self._truth = self._truth.to(raw.device)
            truth = self._truth[index]
            self._count("truth", truth, everything)
            self._count("raw_correct", truth, labels["raw"] == truth)
            self._count("refined_correct", truth, labels["refined"] == truth)
            self._count("selected_correct", truth, weights * (labels["refined"] == truth))

    def _count(self, row: str, classes: Tensor, weights: Tensor) -> None:
        self._counts[ROWS.index(row)].index_add_(0, classes, weights.double())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the file of all epochs, or continue that of a resumed run."""
        self._kept.begin(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the counts of the epoch and reset them."""
        counts = dict(zip(ROWS, sum_over_processes(self._counts).cpu(), strict=True))
        self._counts = torch.zeros_like(self._counts)
        if not counts["raw"].sum():
            return
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        totals = self._totals(trainer, pl_module)
        scalars = pseudo_label_scalars(counts, totals, names if self._truth is not None else None)
        log_scalars(trainer, scalars)
        self._kept.keep(trainer, scalars, counts, totals)
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0 or is_last_epoch(trainer):
            labeled = trainer.datamodule.annotated_counts  # type: ignore[attr-defined]
            draw = partial(pseudo_label_figure, counts, totals, labeled, names)
            figures.log_figure(trainer, "pseudo/labels", draw)

    def _totals(self, trainer: Trainer, pl_module: LightningModule) -> Tensor:
        """Find the target when it is shown, since refiners may register after this callback."""
        totals = self._target_totals
        if totals is None and isinstance(pl_module, SemiSupervisedClassifier):
            totals = pl_module.target_totals()
        if totals is None:
            totals = unlabeled_totals(None, trainer.datamodule)  # type: ignore[attr-defined]
        return totals.detach().double().cpu()

    def state_dict(self) -> dict[str, Any]:
        """Give the counts of the present epoch, over all processes."""
        return {"counts": sum_over_processes(self._counts).cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counts of a checkpoint, on process 0: the processes' counts are summed."""
        if place()[0] == 0:
            self._counts = state_dict["counts"].double()


def kl_divergence(counts: Tensor, target: Tensor) -> float:
    """Compute KL(counts || target) in nats, both `[K]` and scaled to sum 1; infinite if the target lacks a class."""
    observed, expected = counts / counts.sum(), target / target.sum()
    return float(torch.special.xlogy(observed, observed / expected).nan_to_num(nan=0.0, posinf=math.inf).sum())


def pseudo_label_scalars(counts: dict[str, Tensor], totals: Tensor, class_names: list[str] | None) -> dict[str, float]:
    """Compute the scalars of an epoch from counts `[K]` by the names of `ROWS`; accuracies only if names are given."""
    scalars = {
        "pseudo/kl_raw": kl_divergence(counts["raw"], totals),
        "pseudo/kl_refined": kl_divergence(counts["refined"], totals),
        "pseudo/selected": float(counts["selected"].sum() / counts["refined"].sum()),
    }
    if class_names is None:
        return scalars
    seen = counts["truth"].sum()
    scalars["pseudo/accuracy_raw"] = float(counts["raw_correct"].sum() / seen)
    scalars["pseudo/accuracy_refined"] = float(counts["refined_correct"].sum() / seen)
    if counts["selected"].sum():
        scalars["pseudo/accuracy_selected"] = float(counts["selected_correct"].sum() / counts["selected"].sum())
    if len(class_names) <= figures.TICK_LIMIT:
        for k, name in enumerate(class_names):
            if counts["truth"][k]:
                share = counts["refined_correct"][k] / counts["truth"][k]
                scalars[f"pseudo/accuracy_refined_class/{name}"] = float(share)
    return scalars
