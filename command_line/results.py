"""Say at the end of a fit what its best result is, where things are, and what to do next."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pytorch_lightning import LightningDataModule, Trainer

from tailmatch.callbacks.checkpoints import BestCheckpoint
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.weights import read_file


def results_of_fit(trainer: Trainer, data: LightningDataModule | None, run_dir: str) -> list[str]:
    """Return the lines that a fit prints at its end: its best results, its folder, and the command of a test.

    Args:
        trainer: The trainer of the fit.
        data: The data of the fit; if there are test images, a line says how to test the run.
        run_dir: The folder of the run.
    """
    kept = [each for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)]
    best = [_best_result(each) for each in kept if each.best_model_score is not None]
    lines = [*best, f"run folder: {run_dir}"]
    if best and getattr(data, "test", None) is not None:
        words = ["tailmatch", "test", "--run_dir", run_dir, "--ckpt_path", "best"]
        lines.append(f"to test it: {shlex.join(words)}")
    return lines


def _best_result(kept: BestCheckpoint) -> str:
    """Describe the best value of a metric, with the epoch and the step of its checkpoint."""
    score = float("nan") if kept.best_model_score is None else float(kept.best_model_score)
    file = Path(kept.best_model_path)
    text = f"best {kept.monitor}: {score:.3f}, in checkpoints/{file.name}"
    with suppress(SettingsError):  # of another program that removed it
        content = read_file(str(file), mapped=True)
        if isinstance(content, Mapping):
            text += f", epoch {content['epoch'] + 1:,}, step {content['global_step']:,}"
    return text
