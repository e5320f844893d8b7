"""Report the data and the results of a run: class counts, views, confusion matrix and recall."""

import sys
from functools import partial
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from tailmatch.callbacks.reports import class_figures, figures
from tailmatch.datamodules.class_names import printable
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.networks.inputs import to_float
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages, untagged
from tailmatch.lightning_modules.training.length import is_last_epoch

TABLE_LIMIT = 24
"""The largest number of classes that the printed table shows; of more, it shows the first and the last ones."""


class ClassCountsReport(Callback):
    """Report of the number of images per class of each set, with warnings: printed and logged when a fit starts."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table and the warnings; log the figure `data/class_counts`, unless the fit is resumed."""
        data = getattr(trainer, "datamodule", None)
        if data is None or not trainer.is_global_zero:
            return
        table = data.class_count_table()
        console = Console()
        console.print(class_counts_table(table, data.class_names, len(data.unlabeled)))
        truth = data.labeled.truth
        if truth is not None:
            changed, total = int((data.labeled.targets != truth).sum()), len(truth)
            noise = f"label noise: {changed:,} of {total:,} labels are wrong ({changed / total:.1%})"
            console.print(noise, markup=False, highlight=False)
        if (added := len(data.labeled) - len(data.annotated)) > 0:
            console.print(
                f"added_labels: {added:,} of the labeled images have a pseudo-label", markup=False, highlight=False
            )
        for warning in data.warnings():
            console.print(Text(printable(f"warning: {warning}"), style="yellow"))
        if trainer.ckpt_path is None:
            draw = partial(class_figures.class_counts_figure, table, data.class_names)
            figures.log_figure(trainer, "data/class_counts", draw)


class NetworkReport(Callback):
    """Report of the network and the number of its parameters: printed when a fit starts."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print one line."""
        if trainer.is_global_zero:
            parameters = list(pl_module.parameters())
            total = sum(each.numel() for each in parameters)
            trained = sum(each.numel() for each in parameters if each.requires_grad)
            part = "" if trained == total else f", of which {trained:,} are trained"
            network = type(getattr(pl_module, "network", pl_module)).__name__
            print(f"{type(pl_module).__name__} with {network}: {total:,} parameters{part}", flush=True)


def class_counts_table(table: dict[str, list[int]], class_names: list[str], unlabeled_total: int) -> Table:
    """Make the printed table: one row per class, and the total as the last row."""
    shown = Table(title="images per class")
    shown.add_column("class")
    for name in table:
        shown.add_column(name, justify="right")
    half = TABLE_LIMIT // 2
    for k, name in enumerate(class_names):
        if len(class_names) <= TABLE_LIMIT or k < half or k >= len(class_names) - half:
            shown.add_row(Text(printable(name)), *[f"{counts[k]:,}" for counts in table.values()])
        elif k == half:
            shown.add_row("...", *["..."] * len(table))
    totals = [f"{sum(counts):,}" for counts in table.values()]
    shown.add_section()
    shown.add_row("total", *totals)
    unknown = unlabeled_total - sum(table["unlabeled"])
    if unknown:
        shown.caption = f"and {unknown:,} unlabeled images of unknown class"
    return shown


class SteppedBack(Callback):
    """Report to TensorBoard that a resumed run goes back to the step of its checkpoint.

    TensorBoard then leaves out what the killed run logged after that step, and shows no number twice.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the mark that `SummaryWriter` writes for its `purge_step`, which is not known when that is made."""
        if trainer.ckpt_path is None or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                protocol: Any = sys.modules[type(logger.experiment).__module__]  # tensorboard's, or tensorboardX's
                mark = protocol.SessionLog(status=protocol.SessionLog.START)
                event = protocol.Event(step=trainer.global_step + 1, session_log=mark)
                logger.experiment._get_file_writer().add_event(event)


class ViewGrid(Callback):
    """Report of the views of the first training batch, as the figure `data/views`.

    Args:
        images: The number of images shown of each stream.
    """

    def __init__(self, images: int = 8) -> None:
        self.images = images
        self._is_due = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note whether the training begins; a resumed one has logged the figure."""
        self._is_due = trainer.global_step == 0 and trainer.is_global_zero

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Log the figure before the first batch of the training; batches may be many until the first step."""
        if self._is_due:
            self._is_due = False
            rows = {
                f"{stream}\n{name}": images
                for stream, parts in batch.items()
                for name, images in self._views(parts).items()
            }
            figures.log_figure(trainer, "data/views", partial(figures.views_figure, rows))

    def _views(self, parts: dict[str, Any]) -> dict[str, Tensor]:
        views: dict[str, Tensor] = {}
        for name, value in parts.items():
            numbered = value if isinstance(value, list) else [value]
            for number, images in enumerate(numbered):
                if isinstance(images, Tensor | TaggedImages) and images.ndim == 4:
                    label = name if len(numbered) == 1 else f"{name} {number + 1}"
                    shown = untagged(images)[: self.images]
                    views[label] = shown if shown.is_floating_point() else to_float(shown)
        return views


class EvaluationFigures(Callback):
    """Report of the confusion matrix and the recall of each class, as figures of validations and tests.

    Args:
        every_n_epochs: The number of epochs between two validations with figures. There are always figures after the
            last epoch. Drawing them takes a third of a second.
    """

    def __init__(self, every_n_epochs: int = 10) -> None:
        self.every_n_epochs = every_n_epochs

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `val/confusion` and `val/recall`."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 or is_last_epoch(trainer)
        if due and not trainer.sanity_checking:
            self._log(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `test/confusion` and `test/recall`."""
        self._log(trainer, pl_module, "test")

    def _log(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(pl_module, ImageClassifier) or not trainer.is_global_zero:
            return
        result = pl_module.evaluations[stage]
        names = pl_module.class_names
        counts = pl_module.annotated_counts.tolist()
        recall = partial(class_figures.recall_figure, result.recall, counts, names)
        figures.log_figure(trainer, f"{stage}/recall", recall)
        if result.confusion is not None:
            confusion = partial(class_figures.confusion_figure, result.confusion, counts, names)
            figures.log_figure(trainer, f"{stage}/confusion", confusion)
