"""Are the pseudo-labels uniform, or as imbalanced as the data? At a glance."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.remedies.darp.callback import DARP
from tailmatch.callbacks.reports import figures
from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules import SemiSupervisedClassifier
from tailmatch.lightning_modules.pseudo_labels.class_prior import is_known, unlabeled_totals
from tailmatch.lightning_modules.training.distributed import sum_over_processes
from tailmatch.lightning_modules.training.length import is_last_epoch

ROWS = ("raw", "refined", "selected", "truth", "raw_correct", "refined_correct", "selected_correct")
"""Counts that are kept per class: pseudo-labels by their own class, truth and correct ones by the true class."""


class PseudoLabelMonitor(Callback):
    """Logs the pseudo-labels of each epoch beside their target, with and without DARP.

    Scalars under `pseudo/`: KL divergence in nats of raw and refined pseudo-label totals from the target, the
    share selected, and where the truth of the unlabeled images is known, the accuracy of raw, refined and selected
    pseudo-labels and of each class (`pseudo/accuracy_refined_class/<name>`, up to 30 classes). The figure
    `pseudo/labels` shows the totals against target and truth, and the accuracy of each class.

    Raw is what comes into refinement, refined what comes out; without a remedy they are the same.

    Args:
        target: As `DARP.target`; null takes that of a `DARP` in the run, else the labeled counts.
        every_n_epochs: Epochs between figures; scalars are logged every epoch.
    """

    def __init__(self, target: str | list[float] | None = None, every_n_epochs: int = 10) -> None:
        check_at_least("every_n_epochs", every_n_epochs, 1)
        self.target = target
        self.every_n_epochs = every_n_epochs
        self.totals = torch.empty(0)
        self._truth: Tensor | None = None
        self._counts = torch.empty(0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method.

        Raises:
            SettingsError: The method has no pseudo-labels.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, SemiSupervisedClassifier):
            raise SettingsError(f"PseudoLabelMonitor shows pseudo-labels, and {type(pl_module).__name__} has none")
        data = trainer.datamodule  # type: ignore[attr-defined]
        remedies = [c.target for c in trainer.callbacks if isinstance(c, DARP)]  # type: ignore[attr-defined]
        target = remedies[0] if self.target is None and remedies else self.target
        self.totals = unlabeled_totals(target, data)
        self._truth = data.unlabeled.targets if is_known(data) else None
        self._counts = torch.zeros(len(ROWS), data.num_classes, dtype=torch.long)
        pl_module.add_observer(self)

    def observe(self, raw: Tensor, refined: Tensor, selected: Tensor, index: Tensor) -> None:
        """Count a step's pseudo-labels on the device. See `PseudoLabelObserver`."""
        self._counts = self._counts.to(raw.device)
        labels = {"raw": raw.argmax(dim=1), "refined": refined.argmax(dim=1)}
        everything = torch.ones_like(selected)
        self._count("raw", labels["raw"], everything)
        self._count("refined", labels["refined"], everything)
        self._count("selected", labels["refined"], selected)
        if self._truth is not None:
            self._truth = self._truth.to(raw.device)
            truth = self._truth[index]
            self._count("truth", truth, everything)
            self._count("raw_correct", truth, labels["raw"] == truth)
            self._count("refined_correct", truth, labels["refined"] == truth)
            self._count("selected_correct", truth, selected & (labels["refined"] == truth))

    def _count(self, row: str, classes: Tensor, which: Tensor) -> None:
        self._counts[ROWS.index(row)].index_add_(0, classes, which.long())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch and begin anew."""
        counts = dict(zip(ROWS, sum_over_processes(self._counts).double().cpu(), strict=True))
        self._counts = torch.zeros_like(self._counts)
        if not counts["raw"].sum():
            return
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        scalars = pseudo_label_scalars(counts, self.totals, names if self._truth is not None else None)
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=trainer.global_step)
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0 or is_last_epoch(trainer):
            figures.log_figure(trainer, "pseudo/labels", pseudo_label_figure(counts, self.totals, names))

    def state_dict(self) -> dict[str, Any]:
        """Nothing: an epoch that was resumed is counted from there."""
        return {}


def kl_divergence(counts: Tensor, target: Tensor) -> float:
    """KL(counts || target) in nats, both `[K]` and scaled to 1; infinite where the target lacks a class."""
    observed, expected = counts / counts.sum(), target / target.sum()
    return float(torch.special.xlogy(observed, observed / expected).nan_to_num(nan=0.0, posinf=math.inf).sum())


def pseudo_label_scalars(counts: dict[str, Tensor], totals: Tensor, class_names: list[str] | None) -> dict[str, float]:
    """Scalars of an epoch from counts `[K]` by the names of `ROWS`; accuracies where names are given."""
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


def pseudo_label_figure(counts: dict[str, Tensor], totals: Tensor, class_names: list[str]) -> Figure:
    """Shares of each class: raw and refined bars, target and truth as lines; below, accuracy where it is known."""
    known = bool(counts["truth"].sum())
    width = max(6, min(14, 0.5 * len(class_names)))
    figure, axes = figures.new_figure(width, 6 if known else 3.5, rows=2 if known else 1)
    places = np.arange(len(class_names))
    for offset, name in ((-0.2, "raw"), (0.2, "refined")):
        share = (counts[name] / counts[name].sum()).numpy()
        axes[0].bar(places + offset, share, width=0.4, label=name)
    axes[0].plot(places, (totals / totals.sum()).numpy(), "k_-", label="target")
    if known:
        axes[0].plot(places, (counts["truth"] / counts["truth"].sum()).numpy(), "r.:", label="truth")
        for offset, name in ((-0.2, "raw"), (0.2, "refined")):
            share = (counts[f"{name}_correct"] / counts["truth"]).nan_to_num(0).numpy()
            axes[1].bar(places + offset, share, width=0.4, label=name)
        axes[1].set_ylabel("accuracy")
        axes[1].set_ylim(0, 1.05)
    axes[0].set_ylabel("share of pseudo-labels")
    axes[0].legend()
    for axis in axes:
        axis.grid(axis="y", alpha=0.3)
        figures.class_axis(axis, class_names)
    return figure
