"""Find the folder of a run, and the checkpoint that a command line names."""

import os
from collections.abc import Iterator
from pathlib import Path

from tailmatch.command_line.typed import Typed
from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.lightning_modules.checkpoints.remote_files import fetched_dir, local_file


def resolve_checkpoint(typed: Typed) -> Path | None:
    """Find the checkpoint file of `--ckpt_path`: a path, a URL, or `last` or `best` of the `--run_dir`.

    Raises:
        SettingsError: The name is empty, `last` or `best` is given without a run folder, or a URL cannot be fetched.
        MissingFileError: The file does not exist.
    """
    name = (typed.values("--ckpt_path") or ["null"])[-1]
    if not name:
        raise SettingsError("--ckpt_path is empty; give a file, last or best, or leave it out")
    if name in ("null", "None"):
        return None
    path = local_file(name)
    run_dir = typed.run_dir
    if name in ("last", "best") and run_dir is None:
        raise SettingsError(f"--ckpt_path {name} needs the run's folder: add --run_dir runs/<name>")
    checkpoints = path.parent if run_dir is None else Path(run_dir) / "checkpoints"
    if name in ("last", "best"):
        path = checkpoints / f"{name}.ckpt"
    if not path.is_file():
        raise MissingFileError(f"no checkpoint {path}{_others(checkpoints)}")
    return path


def _others(folder: Path) -> str:
    there = sorted(p.name for p in folder.glob("*.ckpt"))
    return f"; {folder} has {', '.join(there)}" if there else f"; {folder} has no checkpoints"


def run_dir_of(checkpoint: Path) -> Path | None:
    """Find the run folder of a checkpoint; None if the checkpoint was fetched from a URL."""
    if checkpoint.is_relative_to(fetched_dir()):
        return None
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def holds_run(folder: Path) -> bool:
    """Tell whether a folder has the configuration or the checkpoints of a run."""
    return (folder / "config.yaml").exists() or any((folder / "checkpoints").glob("*.ckpt"))


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


def claim_run_dir(run_dir: Path, overwrite: bool) -> None:
    """Make sure that a new run does not write over an old one.

    Raises:
        SettingsError: The folder is a file, or holds a run and `overwrite` is false.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise SettingsError(
            f"run_dir is {run_dir}, which is a file; it must be a folder, or a path where one can be made"
        )
    if int(os.environ.get("LOCAL_RANK", 0)) or not holds_run(run_dir):
        return
    if not overwrite:
        saved = (run_dir / "checkpoints" / "last.ckpt").is_file()
        raise SettingsError(
            f"{run_dir} holds a run{': resume it with --ckpt_path last,' if saved else ' without a last.ckpt:'} choose "
            "another --run_dir, or start anew with --overwrite true (the old run is moved aside)"
        )
    aside = next(p for p in numbered(run_dir.with_name(f"{run_dir.name}-old")) if not p.exists())
    run_dir.rename(aside)
    print(f"moved the old run to {aside}")
