"""The command line of a test that leaves nothing but its report."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pytorch_lightning import Trainer

from tailmatch.callbacks.reports.html.callback import NO_IMAGES
from tailmatch.callbacks.reports.html.facts import settings_in
from tailmatch.callbacks.reports.html.material import Material
from tailmatch.callbacks.reports.html.page import FILE, write_report
from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.locks import sole_output
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.training.run_folder import choose_run_folder


class ReportCLI(TailmatchCLI):
    """The command line of `tailmatch test`, which here writes into a folder that is removed, and the report beside it.

    Without test images, the validation images are evaluated; without these, unlabeled images alone are predicted.
    """

    def files_of_test(self, settings: Any) -> list[Path]:
        """List the files that this command writes."""
        return [Path(settings.run_dir) / FILE]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make a trainer whose files, such as `test_metrics.json`, go to a folder of their own."""
        trainer = super().instantiate_trainer(**kwargs)
        aside = self.held.enter_context(TemporaryDirectory(prefix="tailmatch-report-"))
        choose_run_folder(trainer, Path(aside))
        return trainer

    def test(self, model: Any, datamodule: Any, **kwargs: Any) -> None:
        """Evaluate what the data has; the trainer's `test` is one way of it."""
        stage = self._stage(model, datamodule)
        if stage is None:
            self._report_without_images(model, datamodule)
        elif stage == "predict":
            self.trainer.limit_predict_batches = 1  # the prediction is there to load the checkpoint
            self.trainer.predict(model, datamodule=datamodule, return_predictions=False, ckpt_path=kwargs["ckpt_path"])
        else:
            getattr(self.trainer, stage)(model, datamodule=datamodule, **kwargs)

    def _report_without_images(self, model: Any, datamodule: Any) -> None:
        report = self.html_report()
        assert report is not None  # `report` is true in the words of this command
        model.class_names = list(datamodule.class_names)
        material = Material(report.folder, settings_in(report.folder), model=model, data=datamodule)
        material.lacking, material.pool = NO_IMAGES, NO_IMAGES
        report.path = write_report(material)

    def _stage(self, model: Any, data: Any) -> str | None:
        """Choose what is evaluated: the test, the validation or, to label them, unlabeled images; None for nothing."""
        if not isinstance(data, LabeledUnlabeledDataModule):
            return "test"
        data.prepare_data()
        data.setup("test")
        if data.test is not None:
            return "test"
        if data.val is not None:
            return "validate"
        if isinstance(model, Pretraining) or not len(data.unlabeled):
            return None
        data.predict_set = "unlabeled"
        return "predict"

    def after_test(self) -> None:
        """Say where the report is."""
        self.say_where_the_report_is()


def report_without_checkpoint(run: Path) -> Path:
    """Write the report of a run from its files alone, and return its path."""
    lacking = "the run has no checkpoint, so that nothing could be evaluated"
    with sole_output(run / FILE):
        return write_report(Material(run, settings=settings_in(run), lacking=lacking, pool=lacking))
