"""Write the facts of a fit that a comparison of runs needs: versions, device, seed, digests of the data, speed."""

import json
import platform
import subprocess
import time
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

import tailmatch
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.batches import global_seed
from tailmatch.datamodules.class_names import names_digest
from tailmatch.datamodules.output_files import write_json
from tailmatch.datamodules.splitting.digests import rows_digest
from tailmatch.lightning_modules.training.run_folder import run_folder

FILE = "run.json"
"""The name of the file in the run folder."""


class RunFacts(Callback):
    """Report of the facts of a fit as `run.json`, written at its start, after each validation and at its end.

    `seconds` is the time of the training with its validations, without the time between a stop and a resume;
    `steps_per_second` counts the steps that were taken in it. What a killed run had trained after its last validation
    counts in neither. Nothing here is part of the training or of a checkpoint, and nothing waits for the device.
    """

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._began = time.monotonic()
        self._timed_before = 0.0  # steps that are timed, before this process began
        self._first_step = 0
        self._trained = self._wrote = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect the facts, and those of the run that is continued."""
        self._facts, self._trained, self._wrote = {}, False, False
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        file = run_folder(trainer) / FILE
        self._wrote = not file.exists()
        before = read_facts(file) if trainer.ckpt_path is not None else {}
        seconds, self._timed_before = timed(before, trainer.global_step)
        self._first_step, self._began = trainer.global_step, time.monotonic() - seconds
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        data = getattr(trainer, "datamodule", None)
        self._facts = {
            "method": type(pl_module).__name__,
            "begun": before.get("begun") or now,
            "versions": versions(),
            "git": git_state(Path(tailmatch.__file__).parent),
            "device": device_name(trainer.strategy.root_device),
            "processes": trainer.world_size,
            "precision": str(trainer.precision),
            "seed": global_seed(),
        } | (data_facts(data) if isinstance(data, LabeledUnlabeledDataModule) else {})
        self._write(trainer, finished=False)

    def on_train_batch_end(self, *args: Any) -> None:
        """Note that there is something to keep."""
        self._trained = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write how far the fit is."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer, finished=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write that the fit has come to its end."""
        self._write(trainer, finished=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write how far a fit came that is stopped; of one that fails before its first step, leave nothing."""
        if self._facts and self._wrote and not self._trained:
            (run_folder(trainer) / FILE).unlink(missing_ok=True)
        elif not self._facts.get("finished"):
            with suppress(OSError):  # the exception says more
                self._write(trainer, finished=False)

    def _write(self, trainer: Trainer, finished: bool) -> None:
        if not self._facts:
            return
        seconds = time.monotonic() - self._began
        timed = self._timed_before + trainer.global_step - self._first_step
        self._facts["finished"] = finished
        progress = {
            "steps": trainer.global_step,
            "seconds": round(seconds, 1),
            "timed_steps": round(timed),
            "steps_per_second": round(timed / seconds, 4) if timed else None,
        }
        write_json(run_folder(trainer) / FILE, self._facts | progress)


def data_facts(data: LabeledUnlabeledDataModule) -> dict[str, Any]:
    """Give what tells the data of a run from other data, after `setup`."""
    digests = data.state_dict()
    sets = {"labeled": data.labeled, "unlabeled": data.unlabeled, "validation": data.val, "test": data.test}
    evaluated = {name: sets[name] for name in ("validation", "test")}
    test_drawn = bool(data.test_holdout)
    return {
        "data": type(data).__name__,
        "split_seed": global_seed() if data.seed is None else data.seed,
        "classes": {"number": data.num_classes, "digest": names_digest(data.class_names)},
        "class_counts": data.annotated_counts,
        "images": {name: 0 if rows is None else len(rows) for name, rows in sets.items()},
        "digests": {"pool": digests["pool"], "split": digests["split"]}
        | {name: None if rows is None else rows_digest(rows) for name, rows in evaluated.items()},
        "drawn": {  # whether the seed of the split chooses the images of the set
            "validation": test_drawn if data.validate_on_test else bool(data.val_holdout or data.labeled_holdout),
            "test": test_drawn,
        },
    }


def versions() -> dict[str, str | None]:
    """Give the versions of what computes; None for what is not installed."""
    found: dict[str, str | None] = {"tailmatch": tailmatch.__version__, "torch": torch.__version__}
    for name, package in (("torchvision", "torchvision"), ("lightning", "pytorch-lightning")):
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = None
    return found | {"python": platform.python_version()}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Give the revision of a checkout, and whether its files differ from it; None for what is no checkout."""
    if not (folder / ".git").exists():
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return None if revision is None else {"revision": revision, "changed": None if changes is None else bool(changes)}


def _git(folder: Path, *words: str) -> str | None:
    """Run git; None if there is no such program, or if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def device_name(device: torch.device) -> str:
    """Name a GPU, or a processor and its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = next(filter(None, models), name)
    return f"{name}, {torch.get_num_threads()} threads"


def read_facts(file: Path) -> dict[str, Any]:
    """Read a `run.json`; empty if there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def timed(before: dict[str, Any], step: int) -> tuple[float, float]:
    """Give the seconds and the number of steps that a run had been timed for, at the step where it continues.

    Where a kill has lost steps that were timed already, both are reduced in proportion.
    """
    known = [before.get(name) for name in ("seconds", "timed_steps", "steps")]
    if not all(isinstance(value, int | float) and value >= 0 for value in known):
        return 0.0, 0.0
    seconds, timed, steps = (float(value) for value in known if value is not None)
    kept = min(1.0, step / steps) if steps else 1.0
    return kept * seconds, kept * timed
