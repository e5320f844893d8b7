"""Where a run keeps its files, and which checkpoint a command line means."""

import os
from collections.abc import Iterator
from pathlib import Path

from tailmatch.command_line.typed import Typed
from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.lightning_modules.checkpoints.remote_files import fetched_dir, local_file


def resolve_checkpoint(typed: Typed) -> Path | None:
    """The checkpoint file that a command line asks for: a path, a URL, or `last` or `best` of its `--run_dir`.

    Raises:
        SettingsError: `last` or `best` without a run folder, or a URL that cannot be fetched.
        MissingFileError: It is not there.
    """
    name = (typed.values("--ckpt_path") or ["null"])[-1]
    if name in ("null", "None", ""):
        return None
    path = local_file(name)
    if name in ("last", "best"):
        run_dir = typed.run_dir
        if run_dir is None:
            raise SettingsError(f"--ckpt_path {name} needs the run's folder: add --run_dir runs/<name>")
        path = Path(run_dir) / "checkpoints" / f"{name}.ckpt"
    if not path.is_file():
        raise MissingFileError(f"no checkpoint {path}{_others(path)}")
    return path


def _others(path: Path) -> str:
    there = sorted(p.name for p in path.parent.glob("*.ckpt"))
    return f"; {path.parent} has {', '.join(there)}" if there else f"; {path.parent} has no checkpoints"


def run_dir_of(checkpoint: Path) -> Path | None:
    """The run folder of a checkpoint; None if it was fetched from a URL."""
    if checkpoint.is_relative_to(fetched_dir()):
        return None
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def holds_run(folder: Path) -> bool:
    """Whether a folder has a run's configuration or checkpoints."""
    return (folder / "config.yaml").exists() or any((folder / "checkpoints").glob("*.ckpt"))


def free_run_dir(base: Path) -> Path:
    """`base`, with a number where that holds a run."""
    return next(p for p in numbered(base) if not holds_run(p))


def numbered(base: Path) -> Iterator[Path]:
    """`base`, `base-2`, `base-3`, ..."""
    yield base
    number = 2
    while True:
        yield base.with_name(f"{base.name}-{number}")
        number += 1


def claim_run_dir(run_dir: Path, overwrite: bool) -> None:
    """Make sure that a new run does not write over an old one.

    Raises:
        SettingsError: The folder holds a run and `overwrite` is false.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) or not holds_run(run_dir):
        return
    if not overwrite:
        raise SettingsError(
            f"{run_dir} holds a run: resume it with --ckpt_path last, choose another --run_dir, or start anew "
            "with --overwrite true (the old run is moved aside)"
        )
    aside = next(p for p in numbered(run_dir.with_name(f"{run_dir.name}-old")) if not p.exists())
    run_dir.rename(aside)
    print(f"moved the old run to {aside}")
