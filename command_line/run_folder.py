"""Find the folder of a run, and let one command alone write in it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from tailmatch.command_line.processes import is_first_process
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.locks import InUseError, sole_writer
from tailmatch.datamodules.output_files import stale_partials
from tailmatch.lightning_modules.checkpoints.remote_files import fetched_dir

LOCK = "run.lock"

_CHOSEN = "TAILMATCH_RUN_DIR"
"""Environment variable that tells the processes that a fit starts which folder it has chosen."""

_WRITTEN = (
    "config.yaml", "run.json", "last_evaluations.json", "relabeled.csv", "prior.json", "pseudo_label_totals.json"
)  # fmt: skip
"""Files that a fit writes into its folder, beside those in `checkpoints`."""

_LOGS = ("hparams.yaml", "metrics.csv")
"""Files of loggers, beside those of TensorBoard's events."""


def run_dir_of(checkpoint: Path) -> Path | None:
    """Find the run folder of a checkpoint; None if the checkpoint was fetched from a URL."""
    if checkpoint.is_relative_to(fetched_dir()):
        return None
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def holds_run(folder: Path) -> bool:
    """Tell whether a folder has the configuration or the checkpoints of a run."""
    return (folder / "config.yaml").exists() or has_checkpoints(folder)


def has_checkpoints(folder: Path) -> bool:
    """Tell whether a run folder has a checkpoint, of any name."""
    return any((folder / "checkpoints").glob("*.ckpt"))


def free_run_dir(base: Path) -> Path:
    """Find a folder without a run: `base`, or `base` with a number."""
    return next(p for p in numbered(base) if not holds_run(p))


def numbered(base: Path) -> Iterator[Path]:
    """Yield `base`, `base-2`, `base-3` and so on."""
    yield base
    number = 2
    while True:
        yield base.with_name(f"{base.name}-{number}")
        number += 1


def default_run_dir(settings: Any) -> Path:
    """Name a folder in `runs` after the method and the data of some settings."""
    names = [settings[part].class_path.rsplit(".", 1)[-1].lower() for part in ("model", "data")]
    return Path("runs") / "-".join(names)


# Whose folder it is, from here on


def is_writer(trainer: Mapping[str, Any]) -> bool:
    """Tell whether this process is the first one of its run; only that one writes.

    The tasks of a SLURM step are one run only if the trainer has several devices or nodes; else each is a run.

    Args:
        trainer: Settings of the trainer.
    """
    devices = str(trainer.get("devices"))
    if devices in ("auto", "-1"):
        devices = str(max(1, torch.cuda.device_count()))
    return is_first_process(slurm=devices != "1" or trainer.get("num_nodes") != 1)


def take_run_dir(settings: Any, again: bool, held: ExitStack) -> Path:
    """Take the folder of a fit; only the first process of a run does so, the others are told.

    Args:
        settings: Settings of the fit.
        again: Whether a run that was stopped before its first checkpoint is begun again.
        held: Holds the folder, until it is closed.

    Raises:
        SettingsError: The folder is a file, another command writes in it, or it holds a run that may not be touched.
    """
    if settings.run_dir is None:
        base = default_run_dir(settings)
        if is_writer(settings.trainer):
            return _begin_in_new_folder(base, held)
        return Path(os.environ[_CHOSEN]) if _CHOSEN in os.environ else free_run_dir(base)
    run_dir = Path(settings.run_dir)
    if is_writer(settings.trainer):
        _take(run_dir, held)
        own = None if settings.ckpt_path is None else run_dir_of(Path(settings.ckpt_path))
        if own is None or own.resolve() != run_dir.resolve():
            _make_room(run_dir, settings.overwrite, again)
    return run_dir


def _begin_in_new_folder(base: Path, held: ExitStack) -> Path:
    """Take a folder without a run: `base`, or `base` with a number. Runs that begin together take different ones.

    Args:
        base: The first folder that is tried.
        held: Holds the folder, until it is closed.
    """
    _check_folder(base)
    for folder in numbered(base):
        if holds_run(folder):
            continue
        with ExitStack() as attempt:
            try:
                attempt.enter_context(_held(folder))
            except InUseError:
                continue
            if not holds_run(folder):
                held.push(attempt.pop_all())
                break
    os.environ[_CHOSEN] = str(folder)
    return folder


def _take(run_dir: Path, held: ExitStack) -> None:
    _check_folder(run_dir)
    held.enter_context(_held(run_dir))


def _make_room(run_dir: Path, overwrite: bool, again: bool) -> None:
    """Make sure that a new run does not write over an old one.

    What a run has left that ended before its first checkpoint is moved aside, and the other files of the folder stay.

    Raises:
        SettingsError: The folder holds a run that may not be touched.
    """
    if not holds_run(run_dir) or (again and not has_checkpoints(run_dir)):
        return
    if overwrite:
        print(f"moved the old run to {_move_aside(run_dir)}")
    elif has_checkpoints(run_dir):
        raise SettingsError(
            f"{run_dir} holds a run{_how_to_resume(run_dir)} choose another --run_dir, or start a new run with "
            "--overwrite true (the old run is moved aside)"
        )
    else:
        print(f"{run_dir} has a run without a checkpoint: moved its files to {_move_aside(run_dir, _is_of_a_run)}")


def _check_folder(run_dir: Path) -> None:
    if run_dir.exists() and not run_dir.is_dir():
        raise SettingsError(
            f"run_dir is {run_dir}, which is a file; it must be a folder, or a path where one can be made"
        )


@contextmanager
def _held(run_dir: Path) -> Iterator[None]:
    with sole_writer(run_dir / LOCK, str(run_dir), "wait until it ends, or choose another --run_dir"):
        for partial, target in [*stale_partials(run_dir), *stale_partials(run_dir / "checkpoints")]:
            if target.name in _WRITTEN or target.suffix == ".ckpt":
                partial.unlink(missing_ok=True)
        yield


def _how_to_resume(run_dir: Path) -> str:
    if (run_dir / "checkpoints" / "last.ckpt").is_file():
        return ": resume it with --ckpt_path last,"
    return " without a last.ckpt: resume it with --ckpt_path auto,"


def _is_of_a_run(entry: Path) -> bool:
    return entry.name in (*_WRITTEN, *_LOGS) or entry.name.startswith("events.out.tfevents.")


def _move_aside(run_dir: Path, moves: Callable[[Path], bool] = lambda entry: True) -> Path:
    """Move the content of a run folder, except the lock that is held, to a new folder beside it.

    What makes it a run goes last: if this is cut off, the folder still holds one.

    Args:
        run_dir: The folder of the run.
        moves: Whether a file or folder in it is moved.
    """
    folder = run_dir.resolve()
    for aside in numbered(folder.with_name(f"{folder.name}-old")):
        try:
            aside.mkdir()
            break
        except FileExistsError:
            continue
    for entry in sorted(folder.iterdir(), key=lambda path: path.name in ("config.yaml", "checkpoints")):
        if entry.name != LOCK and moves(entry):
            entry.rename(aside / entry.name)
    return aside
