"""Print the results of a test or a validation: what each number means, and the classes that are recognized worst."""

import math

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from tailmatch.datamodules.class_names import short_name
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.metrics import METRICS, Evaluation, shot_groups, third_groups

WORST = 5
"""The number of classes that are listed one by one."""

MEANINGS = {
    "top1": "images whose class is the most likely one",
    "top5": "images whose class is among the top five",
    "balanced_accuracy": "mean of the classes' recalls",
    "gm_recall": "geometric mean of the recalls",
    "macro_f1": "mean of the classes' F1 scores",
    "gm_f1": "geometric mean of the F1 scores",
    "loss": "mean cross-entropy",
    "many": "mean recall, most frequent third: {}",
    "medium": "mean recall, middle third: {}",
    "few": "mean recall, rarest third: {}",
    "many_shot": "mean recall, over 100 labels: {}",
    "medium_shot": "mean recall, 20 to 100 labels: {}",
    "few_shot": "mean recall, under 20 labels: {}",
}
"""What the metrics are, short enough for a narrow terminal; `{}` stands for the classes of a group."""

NOUNS = {"test": "test images", "val": "validation images"}


class EvaluationTable(Callback):
    """Report of a test or a validation: its metrics with units, and the classes with the lowest recall, printed."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the results of a test."""
        self._print(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the results of a validation that is not part of a fit."""
        if trainer.state.fn == "validate":
            self._print(trainer, pl_module, "val")

    def _print(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        logged = {
            name.removeprefix(f"{stage}/"): float(value) for name, value in sorted(trainer.callback_metrics.items())
        }
        console = Console()
        result = pl_module.evaluations.get(stage) if isinstance(pl_module, ImageClassifier) else None
        if result is None or not isinstance(pl_module, ImageClassifier):
            console.print(metrics_table(logged, {}, stage))
            return
        counts = pl_module.class_counts.cpu()
        others = {name: value for name, value in logged.items() if name not in METRICS}
        scalars = {name: float(value) for name, value in result.scalars.items()} | others
        title = f"{int(result.support.sum()):,} {NOUNS[stage]}"
        sizes = group_sizes(pl_module.annotated_counts.cpu(), result.support.cpu())
        console.print(metrics_table(scalars, sizes, title))
        console.print(worst_classes_table(result, counts, pl_module.class_names))


def group_sizes(class_counts: Tensor, support: Tensor) -> dict[str, int]:
    """Count the evaluated classes of each group, `many`, `many_shot` and so on; empty if no image is labeled.

    Args:
        class_counts: The number of labeled images of each class, `[K]`.
        support: The number of evaluated images of each class, `[K]`.
    """
    groups = third_groups(class_counts) | shot_groups(class_counts) if class_counts.sum() else {}
    return {name: int((group & (support > 0)).sum()) for name, group in groups.items()}


def metrics_table(scalars: dict[str, float], groups: dict[str, int], title: str) -> Table:
    """Make the table of metrics: shares in percent, the loss in nats, and other numbers as they are.

    Args:
        scalars: The metrics by name; those of `METRICS` are explained.
        groups: The number of classes in each group (`group_sizes`); a group that is not in it is left out.
        title: The title of the table.
    """
    shown = Table(title=title)
    shown.add_column("metric")
    shown.add_column("value", justify="right")
    shown.add_column("meaning")
    explained = [name for name in METRICS if name in scalars]
    for name in explained:
        if name not in groups and "{}" in MEANINGS[name]:
            continue  # a group by labels that are not known
        value = f"{scalars[name]:.2f} nats" if name == "loss" else f"{100 * scalars[name]:.2f} %"
        classes = groups.get(name)
        shown.add_row(name, value, MEANINGS[name].format("1 class" if classes == 1 else f"{classes} classes"))
    for name, number in scalars.items():
        if name not in METRICS:
            shown.add_row(Text(name), f"{number:.4g}", "")
    return shown


def worst_classes_table(result: Evaluation, class_counts: Tensor, class_names: list[str]) -> Table:
    """Make the table of the classes with the lowest recall, with the class that they are most often mistaken for."""
    measured = int((result.support > 0).sum())
    order = result.recall.nan_to_num(math.inf).argsort(stable=True)[: min(WORST, measured)].tolist()
    shown = Table(title=f"lowest recall, {len(order)} of {measured} classes" if measured > len(order) else "recall")
    shown.add_column("class")
    for header in ("recall", "images", "labeled"):
        shown.add_column(header, justify="right")
    if result.confusion is not None:
        shown.add_column("mostly mistaken for")
    for k in order:
        cells = [f"{100 * float(result.recall[k]):.2f} %", f"{int(result.support[k]):,}", f"{int(class_counts[k]):,}"]
        if result.confusion is not None:
            cells.append(_mistaken_for(result.confusion[k], k, class_names))
        shown.add_row(Text(short_name(class_names[k])), *map(Text, cells))
    return shown


def _mistaken_for(row: Tensor, k: int, class_names: list[str]) -> str:
    """Name the other class that images of class k are predicted as most often, and the share of them."""
    others = row.where(torch.arange(len(row), device=row.device) != k, 0)
    most = int(others.argmax())
    if not others[most]:
        return ""
    return f"{short_name(class_names[most])} ({100 * float(others[most] / row.sum()):.2f} %)"
