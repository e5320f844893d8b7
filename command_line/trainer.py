"""What the command line gives a trainer beside its configuration: a logger, reports, checkpoints, and a writer."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers import TensorBoardLogger

from tailmatch.callbacks.checkpoints import checkpoint_callbacks
from tailmatch.callbacks.reports.evaluation_table import EvaluationTable
from tailmatch.callbacks.reports.html.callback import HtmlReport
from tailmatch.callbacks.reports.metrics_table import MetricsTable
from tailmatch.callbacks.reports.progress import DurationReport, progress_report
from tailmatch.callbacks.reports.run import ClassCountsReport, EvaluationFigures, NetworkReport, SteppedBack, ViewGrid
from tailmatch.callbacks.reports.run_facts import RunFacts
from tailmatch.callbacks.reports.self_training import SelfTrainingReport
from tailmatch.callbacks.writers.prediction_shards import PredictionShards
from tailmatch.command_line.predict import writers
from tailmatch.command_line.run_folder import is_writer
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.checkpoint_io import AtomicCheckpointIO


def trainer_arguments(settings: Any, run_dir: Path) -> dict[str, Any]:
    """Make the arguments by which a trainer logs and saves in the run folder.

    Args:
        settings: The configuration of the subcommand, whose objects are made.
        run_dir: The folder of the run.
    """
    arguments: dict[str, Any] = {
        "default_root_dir": str(run_dir),
        "plugins": [*_listed(settings.trainer.plugins), AtomicCheckpointIO()],
    }
    if settings.trainer.logger in (None, True):
        arguments["logger"] = TensorBoardLogger(save_dir=run_dir, name="", version="")
    return arguments


def added_callbacks(subcommand: str, settings: Any, run_dir: Path) -> list[Callback]:
    """Make the callbacks that every run has beside those of its configuration; see `trainer_arguments`.

    Raises:
        SettingsError: The output of a prediction, or the plan of the checkpoints, is refused; or a fit has a writer of
            predictions, which would write nothing.
    """
    configured = _listed(settings.trainer.callbacks)
    for writer in configured:
        if subcommand == "fit" and isinstance(writer, PredictionShards):
            raise SettingsError(f"{type(writer).__name__} writes what `predict` predicts: leave it out of a fit")
    callbacks: list[Callback] = [ClassCountsReport(), NetworkReport(), SelfTrainingReport()]
    if subcommand == "fit":
        callbacks.append(RunFacts())
    if settings.trainer.logger is not False:
        callbacks += [SteppedBack(), ViewGrid(), EvaluationFigures(), MetricsTable()]
    own = any(isinstance(callback, ProgressBar) for callback in configured)
    if settings.trainer.enable_progress_bar is not False and not own:
        callbacks += [DurationReport(), progress_report()]
    if settings.get("verbose"):
        callbacks.append(EvaluationTable())
    if subcommand == "test" and settings.report:
        callbacks.append(HtmlReport(run_dir, settings.unlabeled_images))
    if subcommand == "predict":
        callbacks += writers(configured, settings.data, run_dir, settings.output, settings.overwrite)
    if settings.trainer.enable_checkpointing is not False:
        callbacks += checkpoint_callbacks(settings.checkpoint, run_dir / "checkpoints")
    return callbacks


def predicted_files(settings: Any, added: Sequence[Callback], run_dir: Path) -> list[Path]:
    """List the files that the writers of a prediction write; empty but on the first process, which writes them.

    Args:
        settings: The configuration of the subcommand, whose objects are made.
        added: The result of `added_callbacks`.
        run_dir: The folder of the run.
    """
    if not is_writer(settings.trainer):
        return []
    callbacks = (*_listed(settings.trainer.callbacks), *added)
    return [each.path_in(run_dir) for each in callbacks if isinstance(each, PredictionShards)]


def without_gpu(trainer: Any) -> SettingsError | None:
    """Make the error of a trainer that asks for a GPU where torch finds none; None for any other trainer.

    Args:
        trainer: Settings of the trainer.
    """
    if trainer.accelerator not in ("gpu", "cuda") or torch.cuda.is_available():
        return None
    built = "this torch is built without CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda}"
    return SettingsError(
        f"trainer.accelerator is {trainer.accelerator}, and torch finds no GPU ({built}): add "
        "--trainer.accelerator cpu --trainer.precision 32-true, or leave out the configuration that asks for one"
    )


def without_devices(trainer: Any) -> SettingsError | None:
    """Make the error of a trainer that asks for no device, or for fewer; None for any other trainer.

    Args:
        trainer: Settings of the trainer.
    """
    if not re.fullmatch(r"|0|\[\]|-(?!1$)\d+", str(trainer.devices)):
        return None
    return SettingsError(
        f"trainer.devices is {trainer.devices}; it must be a number of 1 or more, -1 or auto (all), or a list of "
        "the indices of GPUs, such as [0]; for a CPU, add --trainer.accelerator cpu --trainer.devices 1"
    )


def _listed(value: Any) -> list[Any]:
    """Make a list of what may be one object, a list of some, or None."""
    return value if isinstance(value, list) else [value] if value else []
