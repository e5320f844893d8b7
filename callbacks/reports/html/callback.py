"""Write the report of a run at the end of an evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.reports.html.facts import settings_in
from tailmatch.callbacks.reports.html.material import Material, Pool
from tailmatch.callbacks.reports.html.outcomes import Collector, Outcomes
from tailmatch.callbacks.reports.html.page import FILE, write_report
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import check_count
from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.output_files import check_writable
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import settings_of
from tailmatch.lightning_modules.checkpoints.weights import read_file
from tailmatch.lightning_modules.inference.predict_set import rows_of_set
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages

LEAST_UNLABELED, MOST_UNLABELED, PART = 200, 5000, 10
"""How many unlabeled images are predicted: one for ten evaluated images, within these bounds."""

NO_IMAGES = "the data has no test images, and no validation images"
"""Why nothing was evaluated."""


class HtmlReport(Callback):
    """Report of a test as one page, `report.html`, and of the images to label next, `label_next.csv`.

    The predictions of the test are kept as they are made. Beside them, a sample of the unlabeled images is predicted.

    Args:
        folder: The folder of the run.
        unlabeled_images: The largest number of unlabeled images that are predicted, to find those to label next. None:
            a tenth of the number of evaluated images, at least 200 and at most 5,000.

    Raises:
        SettingsError: `unlabeled_images` is negative.
    """

    def __init__(self, folder: Path, unlabeled_images: int | None = None) -> None:
        if unlabeled_images is not None:
            check_count("unlabeled_images", unlabeled_images, 0)
        self.folder = folder
        self.unlabeled_images = unlabeled_images
        self._collector = Collector(0)
        self._seen: Outcomes | None = None
        self._pool: Pool | str = ""
        self._failure: Exception | None = None
        self.path: Path | None = None

    # While images are evaluated

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that the report can be written, and begin to keep predictions."""
        check_writable(self.folder / FILE)
        rows = _evaluated(trainer)
        self._collector = Collector(0 if rows is None else len(rows))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the predictions of a batch."""
        if isinstance(outputs, Mapping) and "logits" in outputs:
            self._collector.add(outputs["logits"].float().softmax(dim=1), batch["index"], batch["target"])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the predictions of all processes together, and predict unlabeled images.

        This is before the end of the test, when remedies that adjust logits stop, and before the method writes the
        metrics of the test, which are not to be lost: an error is raised after that.
        """
        self._seen = self._collector.gathered() if self._collector.size else None
        try:
            self._pool = self._predicted_pool(trainer, pl_module)
        except Exception as error:
            if trainer.world_size > 1:  # the others wait for this process
                raise
            self._failure = error

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report, on process 0."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if not trainer.is_global_zero or not isinstance(pl_module, ImageClassifier):
            return
        material = material_of(trainer, pl_module, self.folder)
        material.outcomes, material.pool = self._seen, self._pool
        self.path = write_report(material)

    on_validation_start, on_validation_batch_end = on_test_start, on_test_batch_end
    on_validation_epoch_end, on_validation_end = on_test_epoch_end, on_test_end
    on_predict_start, on_predict_epoch_end, on_predict_end = on_test_start, on_test_epoch_end, on_test_end

    # Unlabeled images

    def _predicted_pool(self, trainer: Trainer, pl_module: LightningModule) -> Pool | str:
        """Predict a sample of the unlabeled images, or say why not."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(pl_module, Pretraining):
            return "a pre-training has no classifier of its own"
        if not isinstance(data, LabeledUnlabeledDataModule) or not isinstance(pl_module, ImageClassifier):
            return "the data has no unlabeled images"
        rows = without_labeled(data)
        if not len(rows):
            return "the data has no unlabeled images"
        most = self._most_unlabeled()
        if not most:
            return "unlabeled_images is 0"
        sample = sampled(rows, most)
        collector = Collector(len(sample))

        def probs(images: Tensor | TaggedImages) -> Tensor:
            return pl_module(images).float().softmax(dim=1)  # type: ignore[no-any-return]

        for predicted, batch in rows_of_set(trainer, pl_module.network, data.evaluation_loader(sample), probs):
            collector.add(predicted, batch["index"].to(predicted.device), None)
        return Pool(sample, len(rows), collector.gathered())

    def _most_unlabeled(self) -> int:
        if self.unlabeled_images is not None:
            return self.unlabeled_images
        return max(LEAST_UNLABELED, min(MOST_UNLABELED, self._collector.size // PART))


def without_labeled(data: LabeledUnlabeledDataModule) -> ImageRows:
    """Return the unlabeled images of a data module without those that are labeled, too."""
    rows = data.unlabeled.rows
    if data.unlabeled.images is data.annotated.images:
        rows = rows[~torch.isin(rows, data.annotated.rows)]
    return ImageRows(data.unlabeled.images, rows, labeled=False)


def sampled(rows: ImageRows, number: int) -> ImageRows:
    """Draw a number of images without replacement, in their order; the same ones each time."""
    if len(rows) <= number:
        return rows
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:number].sort().values
    return ImageRows(rows.images, rows.rows[chosen], labeled=False)


def _evaluated(trainer: Trainer) -> ImageRows | None:
    """Return the images that are evaluated; None in a prediction."""
    data, stage = trainer.datamodule, trainer.state.fn  # type: ignore[attr-defined]
    return data.evaluated(stage) if stage in ("test", "validate") else None


def material_of(trainer: Trainer, model: ImageClassifier, folder: Path) -> Material:
    """Collect what is known of a run at the end of its evaluation."""
    stage = {"test": "test", "validate": "val"}.get(str(trainer.state.fn and trainer.state.fn.value), "")
    data = trainer.datamodule  # type: ignore[attr-defined]
    material = Material(folder, model=model, rows=_evaluated(trainer), checkpoint=model.evaluated_checkpoint())
    material.data = data if isinstance(data, LabeledUnlabeledDataModule) else None
    material.evaluation = model.evaluations.get(stage)
    if stage == "val":
        material.images = "validation images"
    elif not stage:
        material.lacking = NO_IMAGES
    if isinstance(material.checkpoint, str):
        content = read_file(material.checkpoint, mapped=True)
        content = content if isinstance(content, dict) else {}
        names = ("epoch", "global_step", "pytorch-lightning_version")
        material.trained = {name: content[name] for name in names if name in content}
        material.settings = settings_of(content, material.checkpoint)
    material.settings = material.settings or settings_in(folder)
    return material
