"""Report which classes are learned first, and when wrong labels begin to be memorized."""

from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.reports import figures
from tailmatch.callbacks.reports.scalars import log_scalars
from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.datamodules.class_names import short_name
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.inference.predict_set import predict_set
from tailmatch.lightning_modules.metrics import third_groups
from tailmatch.lightning_modules.training.distributed import sum_over_processes
from tailmatch.lightning_modules.training.length import is_last_epoch

ROWS = ("images", "fit", "wrong", "corrected", "memorized")
"""The counts of each given label, in this order; the last three only if the truth is known."""

NAMED_LINES = 10
"""The largest number of classes drawn in one color each. More classes are colored by thirds (many, medium, few)."""


class EarlyLearningCurves(Callback):
    """Report of how the labeled images are predicted in the course of the training, with the evaluated weights.

    Networks first learn what the images of a class have in common, and memorize wrong labels later (Liu et al. 2020,
    ELR, arXiv 2007.00151, figure 1). The callback logs these scalars under `early/`:

    * `fit`: the share of the labeled images whose prediction is their label; `fit_class/<name>` is the share among the
      images with that label (for up to 30 classes).
    * With `label_noise`, where the true classes are known: `learned` is the same share among the correctly labeled
      images. Among the wrongly labeled images, `memorized` is the share predicted as their wrong label, and `corrected`
      the share predicted as their true class; `memorized_class/<name>` and `corrected_class/<name>` are these shares
      among the images with that label.

    The figure `early/curves` shows all of them over the epochs. Images are predicted without augmentation, by the
    averaged weights if the method averages, and the training keeps its exact bits. Labels are the given ones, even if
    `SelfTraining` replaced some.

    Args:
        every_n_epochs: The number of epochs between two predictions. Each is a pass over the labeled images without
            gradients. There is always one after the last epoch.
        figures_every: The number of epochs between two figures. There is always one after the last epoch.

    Raises:
        SettingsError: An argument is below 1.
    """

    def __init__(self, every_n_epochs: int = 1, figures_every: int = 10) -> None:
        check_count("every_n_epochs", every_n_epochs)
        check_count("figures_every", figures_every)
        self.every_n_epochs = every_n_epochs
        self.figures_every = figures_every
        self.epochs: list[int] = []  # the number of epochs done at each prediction
        self.counts: list[Tensor] = []  # int64 [R, K] of each prediction, in the order of `ROWS`

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start empty curves.

        Raises:
            SettingsError: The method does not train on labeled images.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, ImageClassifier) or "labeled" not in pl_module.streams:
            raise SettingsError(
                f"EarlyLearningCurves shows how labels are learned, and {type(pl_module).__name__} trains on none"
            )
        self.epochs, self.counts = [], []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict the labeled images if a prediction is due."""
        done, last = trainer.current_epoch + 1, is_last_epoch(trainer)
        if not (done % self.every_n_epochs == 0 or last) or not isinstance(pl_module, ImageClassifier):
            return
        counts = self._count(trainer, pl_module)
        self.epochs.append(done)
        self.counts.append(counts)
        names = pl_module.class_names
        log_scalars(trainer, early_scalars(counts, names))
        if (done % self.figures_every == 0 or last) and trainer.loggers:
            draw = partial(early_figure, self.epochs, torch.stack(self.counts), names)
            figures.log_figure(trainer, "early/curves", draw)

    def _count(self, trainer: Trainer, pl_module: ImageClassifier) -> Tensor:
        data = trainer.datamodule  # type: ignore[attr-defined]
        with pl_module.evaluated_weights():
            loader = data.evaluation_loader(data.labeled)
            predicted = predict_set(trainer, pl_module.network, loader, keep=lambda probs: probs.argmax(dim=1))
        mine = slice(trainer.global_rank, None, trainer.world_size)
        given, truth = data.labeled.targets[mine], data.labeled.truth
        truth = None if truth is None else truth[mine].to(predicted.device)
        counts = early_counts(predicted, given.to(predicted.device), truth, pl_module.num_classes)
        return sum_over_processes(counts).cpu()

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Give the curves so far."""
        return {"epochs": list(self.epochs), "counts": list(self.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the curves of a checkpoint."""
        self.epochs, self.counts = list(state_dict["epochs"]), list(state_dict["counts"])


def early_counts(predicted: Tensor, given: Tensor, truth: Tensor | None, num_classes: int) -> Tensor:
    """Count the images with each label.

    Args:
        predicted: `int64 [N]`, the predicted classes.
        given: `int64 [N]`, the labels, by which images are counted.
        truth: `int64 [N]`, the true classes before label noise. None: they are not known.
        num_classes: K, the number of classes.

    Returns:
        `int64 [R, K]`, the rows in the order of `ROWS`; without the truth only the first two.
    """
    rows = [torch.ones_like(given, dtype=torch.bool), predicted == given]
    if truth is not None:
        wrong = given != truth
        rows += [wrong, wrong & (predicted == truth), wrong & (predicted == given)]
    counts = torch.zeros(len(rows), num_classes, dtype=torch.long, device=given.device)
    return counts.index_add_(1, given, torch.stack(rows).long())


def early_shares(counts: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Compute the shares of `EarlyLearningCurves` from counts.

    Args:
        counts: `int64 [..., R, K]`, results of `early_counts`.

    Returns:
        For the name of each share, its overall value `[...]` and its value for each class `[..., K]`, NaN where there
        are no images.
    """
    parts = dict(zip(ROWS, counts.double().unbind(dim=-2), strict=False))
    ratios = {"fit": (parts["fit"], parts["images"])}
    if "wrong" in parts:
        ratios["learned"] = (parts["fit"] - parts["memorized"], parts["images"] - parts["wrong"])
        ratios["memorized"] = (parts["memorized"], parts["wrong"])
        ratios["corrected"] = (parts["corrected"], parts["wrong"])
    return {name: (part.sum(-1) / whole.sum(-1), part / whole) for name, (part, whole) in ratios.items()}


def early_scalars(counts: Tensor, class_names: list[str]) -> dict[str, float]:
    """Compute the scalars of an epoch from its counts `[R, K]`; those of single classes for up to 30 classes."""
    scalars = {}
    for name, (overall, by_class) in early_shares(counts).items():
        scalars[f"early/{name}"] = float(overall)
        if name != "learned" and len(class_names) <= figures.TICK_LIMIT:
            scalars |= {f"early/{name}_class/{k}": float(v) for k, v in zip(class_names, by_class, strict=True)}
    return {name: value for name, value in scalars.items() if value == value}


# Figure


def early_figure(epochs: list[int], counts: Tensor, class_names: list[str]) -> Figure:
    """Draw the share of each class that is predicted as labeled, and below it the predictions of wrong labels.

    Args:
        epochs: E numbers of epochs done, the x axis.
        counts: `int64 [E, R, K]`, the result of `early_counts` at each of them.
        class_names: The K names of the classes.
    """
    shares = early_shares(counts)
    figure, axes = figures.new_figure(9, 8 if "memorized" in shares else 4.5, rows=2 if "memorized" in shares else 1)
    overall, by_class = shares["fit"]
    if len(class_names) <= NAMED_LINES:
        _named_lines(axes[0], epochs, by_class, counts[-1, 0], class_names)
    else:
        _group_lines(axes[0], epochs, by_class, counts[-1, 0])
    axes[0].plot(epochs, overall.numpy(), "k--", linewidth=2, label="all")
    axes[0].set_title("predicted as labeled", fontsize=10)
    if "memorized" in shares:
        _wrong_labels(axes[1], epochs, shares, counts[-1, 2].sum().item())
    for axis in axes:
        axis.set_ylim(-0.02, 1.02)
        axis.set_ylabel("share of the images")
        axis.set_xlabel("epochs")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return figure


def _named_lines(axis: Axes, epochs: list[int], by_class: Tensor, images: Tensor, class_names: list[str]) -> None:
    """Draw each class in its own color; the legend has the order of the last values."""
    for k in by_class[-1].nan_to_num(-1).argsort(descending=True, stable=True).tolist():
        if images[k]:
            label = f"{short_name(class_names[k])} ({int(images[k]):,})"
            label = f" {label}" if label.startswith("_") else label  # a legend leaves out what begins with `_`
            axis.plot(epochs, by_class[:, k].numpy(), color=f"C{k}", marker=".", linewidth=1.3, label=label)


def _group_lines(axis: Axes, epochs: list[int], by_class: Tensor, images: Tensor) -> None:
    """Draw a thin line for each class, and a thick one for the mean of each third (many, medium and few images)."""
    for (name, group), color in zip(third_groups(images).items(), ("tab:blue", "tab:orange", "tab:green"), strict=True):
        group = group & (images > 0)
        if not group.any():
            continue
        lines, sizes = by_class[:, group], images[group]
        axis.plot(epochs, lines.numpy(), color=color, linewidth=0.7, alpha=0.35)
        label = f"{name}: mean of {len(sizes)} classes\nof {int(sizes.min()):,} to {int(sizes.max()):,} images"
        axis.plot(epochs, lines.mean(dim=1).numpy(), color=color, linewidth=2.5, label=label)


def _wrong_labels(axis: Axes, epochs: list[int], shares: dict[str, tuple[Tensor, Tensor]], wrong: float) -> None:
    """Draw how wrong labels are predicted, in the colors of ELR's figure 1: corrected green, memorized red."""
    corrected, memorized = shares["corrected"][0].numpy(), shares["memorized"][0].numpy()
    axis.plot(epochs, memorized, color="tab:red", marker=".", label="memorized:\nthe wrong label")
    axis.plot(epochs, corrected, color="tab:green", marker=".", label="corrected:\nthe true class")
    axis.plot(epochs, 1 - corrected - memorized, color="tab:blue", marker=".", linewidth=1, label="another class")
    learned = shares["learned"][0].numpy()
    axis.plot(epochs, learned, color="0.5", linestyle=":", label="rightly labeled\nand predicted so")
    axis.set_title(f"predictions of the {wrong:,.0f} wrongly labeled images", fontsize=10)
