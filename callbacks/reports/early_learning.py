"""Which classes are learned first, and when wrong labels begin to be memorized."""

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.reports import figures
from tailmatch.callbacks.reports.scalars import log_scalars
from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.inference.predict_set import predict_set
from tailmatch.lightning_modules.metrics import third_groups
from tailmatch.lightning_modules.training.distributed import sum_over_processes
from tailmatch.lightning_modules.training.length import total_epochs

ROWS = ("images", "fit", "wrong", "corrected", "memorized")
"""What is counted per class of the given label; the last three where the truth is known."""

NAMED_LINES = 10
"""Most classes that have a color of their own in the figure; more have that of their third, by their images."""


class EarlyLearningCurves(Callback):
    """Follows what the evaluated (averaged) weights say of the labeled images, epoch by epoch.

    Networks learn what images of a class have in common first, and wrong labels by heart later (Liu et al. 2020, ELR,
    arXiv 2007.00151, figure 1). Scalars under `early/`:

    * `fit`: share of the labeled images that are predicted as they are labeled, and of those with each label
      (`fit_class/<name>`, up to 30 classes);
    * after `label_noise`, where the truth is known: `learned`, that share of the rightly labeled images; of the wrongly
      labeled ones, those that are predicted as they are labeled (`memorized`) and as what they are (`corrected`), and
      the same of those with each label (`memorized_class/<name>`, `corrected_class/<name>`).

    The figure `early/curves` shows all of it over the epochs. Images are predicted without augmentation; the training
    does not change by a bit. Labels are the given ones, also where `SelfTraining` replaced some.

    Args:
        every_n_epochs: Epochs between predictions, each a pass over the labeled images without gradient; the last
            epoch always has one.
        figures_every: Epochs between figures; the last epoch always has one.
    """

    def __init__(self, every_n_epochs: int = 1, figures_every: int = 10) -> None:
        check_at_least("every_n_epochs", every_n_epochs, 1)
        check_at_least("figures_every", figures_every, 1)
        self.every_n_epochs = every_n_epochs
        self.figures_every = figures_every
        self.epochs: list[int] = []  # that were done at each prediction
        self.counts: list[Tensor] = []  # int64 [R, K] of each, by the names of `ROWS`

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew.

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
        """Predict if it is time."""
        self._follow(trainer, pl_module, trainer.current_epoch + 1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Make up for what a resume left out.

        (Lightning does not call `on_train_epoch_end` where a run goes on from the last step of an epoch.)
        """
        if batch_idx == 0:
            with torch.random.fork_rng(devices=[]):  # seeded for this step already, and a loader draws a seed
                self._follow(trainer, pl_module, trainer.current_epoch)

    def _follow(self, trainer: Trainer, pl_module: LightningModule, done: int) -> None:
        """Predict once after `done` epochs, if it is time."""
        last = done >= total_epochs(trainer)
        known = self.epochs[-1] if self.epochs else 0
        if done <= known or not (done % self.every_n_epochs == 0 or last) or not isinstance(pl_module, ImageClassifier):
            return
        counts = self._count(trainer, pl_module)
        self.epochs.append(done)
        self.counts.append(counts)
        names = pl_module.class_names
        log_scalars(trainer, early_scalars(counts, names))
        if (done % self.figures_every == 0 or last) and trainer.loggers:
            figures.log_figure(trainer, "early/curves", early_figure(self.epochs, torch.stack(self.counts), names))

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
        """The curves so far."""
        return {"epochs": list(self.epochs), "counts": list(self.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curves of a checkpoint."""
        self.epochs, self.counts = list(state_dict["epochs"]), list(state_dict["counts"])


def early_counts(predicted: Tensor, given: Tensor, truth: Tensor | None, num_classes: int) -> Tensor:
    """Images with each label, `int64 [R, K]` by the names of `ROWS`; the first two rows alone without the truth.

    Args:
        predicted: `int64 [N]` classes.
        given: `int64 [N]` labels, by which images are counted.
        truth: `int64 [N]` classes before label noise, None where they are not known.
        num_classes: K.
    """
    rows = [torch.ones_like(given, dtype=torch.bool), predicted == given]
    if truth is not None:
        wrong = given != truth
        rows += [wrong, wrong & (predicted == truth), wrong & (predicted == given)]
    counts = torch.zeros(len(rows), num_classes, dtype=torch.long, device=given.device)
    return counts.index_add_(1, given, torch.stack(rows).long())


def early_shares(counts: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Names of shares to their overall values `[...]` and those of each class, `[..., K]`, NaN of none.

    Args:
        counts: `int64 [..., R, K]` of `early_counts`.
    """
    parts = dict(zip(ROWS, counts.double().unbind(dim=-2), strict=False))
    ratios = {"fit": (parts["fit"], parts["images"])}
    if "wrong" in parts:
        ratios["learned"] = (parts["fit"] - parts["memorized"], parts["images"] - parts["wrong"])
        ratios["memorized"] = (parts["memorized"], parts["wrong"])
        ratios["corrected"] = (parts["corrected"], parts["wrong"])
    return {name: (part.sum(-1) / whole.sum(-1), part / whole) for name, (part, whole) in ratios.items()}


def early_scalars(counts: Tensor, class_names: list[str]) -> dict[str, float]:
    """Scalars of an epoch from its counts `[R, K]`; those of single classes where they are few enough to read."""
    scalars = {}
    for name, (overall, by_class) in early_shares(counts).items():
        scalars[f"early/{name}"] = float(overall)
        if name != "learned" and len(class_names) <= figures.TICK_LIMIT:
            scalars |= {f"early/{name}_class/{k}": float(v) for k, v in zip(class_names, by_class, strict=True)}
    return {name: value for name, value in scalars.items() if value == value}


# Figure


def early_figure(epochs: list[int], counts: Tensor, class_names: list[str]) -> Figure:
    """Share of each class that is predicted as labeled, over the epochs; below, what becomes of wrong labels.

    Args:
        epochs: E numbers of epochs that were done.
        counts: `int64 [E, R, K]`.
        class_names: K names.
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
    """A color for each class, the legend in the order of the last values."""
    for k in by_class[-1].nan_to_num(-1).argsort(descending=True, stable=True).tolist():
        if images[k]:
            label = f"{class_names[k]} ({int(images[k]):,})"
            axis.plot(epochs, by_class[:, k].numpy(), color=f"C{k}", marker=".", linewidth=1.3, label=label)


def _group_lines(axis: Axes, epochs: list[int], by_class: Tensor, images: Tensor) -> None:
    """Thin lines for the classes and a thick one for the mean of each third, by their images."""
    for (name, group), color in zip(third_groups(images).items(), ("tab:blue", "tab:orange", "tab:green"), strict=True):
        group = group & (images > 0)
        if not group.any():
            continue
        lines, sizes = by_class[:, group], images[group]
        axis.plot(epochs, lines.numpy(), color=color, linewidth=0.7, alpha=0.35)
        label = f"{name}: mean of {len(sizes)} classes\nof {int(sizes.min()):,} to {int(sizes.max()):,} images"
        axis.plot(epochs, lines.mean(dim=1).numpy(), color=color, linewidth=2.5, label=label)


def _wrong_labels(axis: Axes, epochs: list[int], shares: dict[str, tuple[Tensor, Tensor]], wrong: float) -> None:
    """The colors of ELR's figure 1: correct green, memorized red, neither blue."""
    corrected, memorized = shares["corrected"][0].numpy(), shares["memorized"][0].numpy()
    axis.plot(epochs, memorized, color="tab:red", marker=".", label="memorized:\nthe wrong label")
    axis.plot(epochs, corrected, color="tab:green", marker=".", label="corrected:\nthe true class")
    axis.plot(epochs, 1 - corrected - memorized, color="tab:blue", marker=".", linewidth=1, label="another class")
    learned = shares["learned"][0].numpy()
    axis.plot(epochs, learned, color="0.5", linestyle=":", label="rightly labeled\nand predicted so")
    axis.set_title(f"predictions of the {wrong:,.0f} wrongly labeled images", fontsize=10)
