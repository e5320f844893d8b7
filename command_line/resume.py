"""Find the checkpoint that a command line names, or the one to continue from."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.command_line.run_folder import has_checkpoints, holds_run
from tailmatch.command_line.typed import Typed
from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.lightning_modules.checkpoints.remote_files import is_url, local_file
from tailmatch.lightning_modules.checkpoints.weights import read_file

IN_RUN = ("last", "best", "auto")
"""What `--ckpt_path` may name beside files: checkpoints of the `--run_dir`."""

HELP = "Path or URL of a checkpoint, or last or best: those of run_dir."

HELP_FOR_FIT = " Or auto: continue the run of run_dir from its last checkpoint, or begin it if there is none."


def resolve_checkpoint(typed: Typed) -> Path | None:
    """Find the checkpoint file of `--ckpt_path`: a path, a URL, or `last`, `best` or `auto` of the `--run_dir`.

    Returns:
        The file, which can be read; None if none is named, or if `auto` finds none, so that the run is to begin.

    Raises:
        SettingsError: The name is empty; `last`, `best` or `auto` is given without a run folder, or with `--overwrite
            true`; `auto` is not for this command; a URL cannot be fetched; or the file is damaged, and the message
            names the newest good one beside it.
        MissingFileError: The file does not exist.
    """
    if typed.values("--ckpt_path")[-1:] == [""]:  # such as a variable of a script that is not set
        raise SettingsError("--ckpt_path is empty; give a file, last, best or auto, or leave it out")
    name, run_dir = typed.checkpoint, typed.run_dir
    if name is None:
        return None
    if name in IN_RUN and run_dir is None:
        raise SettingsError(f"--ckpt_path {name} needs the run's folder: add --run_dir runs/<name>")
    anew = next(reversed(typed.values("--overwrite")), "false").lower() == "true"
    if name in IN_RUN and anew and typed.subcommand == "fit":
        raise SettingsError(f"--overwrite true starts a new run, --ckpt_path {name} continues the old: leave one out")
    if name == "auto":
        return _newest(typed, Path(str(run_dir)))
    path = Path(str(run_dir), "checkpoints", f"{name}.ckpt") if name in IN_RUN else local_file(name)
    if not path.is_file():
        raise MissingFileError(f"no checkpoint {path}{_others(path.parent if run_dir is None else Path(run_dir))}")
    if not is_url(name):
        try:
            read_file(str(path), mapped=True)
        except SettingsError as error:
            raise _with_another(error, typed, path) from error
    return path


def step_of(checkpoint: Path) -> int | None:
    """Read the step of a checkpoint; None if no training can continue from it.

    Raises:
        SettingsError: It cannot be read.
    """
    content = read_file(str(checkpoint), mapped=True)
    step = content.get("global_step") if isinstance(content, Mapping) else None
    return step if isinstance(step, int) else None


def _newest(typed: Typed, run_dir: Path) -> Path | None:
    """Find the checkpoint from which `auto` continues, `last` if it is there; None if the run has none."""
    if typed.subcommand != "fit":
        raise SettingsError("--ckpt_path auto is for fit, which continues or begins a run: name best, last or a file")
    folder = run_dir / "checkpoints"
    last, damage = folder / "last.ckpt", "there is no last.ckpt"
    if not has_checkpoints(run_dir):
        return None
    if last.is_file():
        try:
            read_file(str(last), mapped=True)
            return last
        except SettingsError as error:
            damage = str(error)
    good = _newest_good(folder)
    if good is None:
        raise SettingsError(
            f"{damage}; {folder} has no other checkpoint to continue from: choose another "
            "--run_dir, or start a new run with --overwrite true (the old run is moved aside) and without --ckpt_path"
        )
    if last.is_file():
        rank_zero_warn(f"{damage}; the run continues from {good}, step {step_of(good)}")
    return good


def _newest_good(folder: Path) -> Path | None:
    steps = dict[Path, int]()
    for path in sorted(folder.glob("*.ckpt")):
        with suppress(SettingsError):
            step = step_of(path)
            steps |= {} if step is None else {path: step}
    return max(steps, key=lambda path: steps[path], default=None)


def _with_another(error: SettingsError, typed: Typed, path: Path) -> SettingsError:
    """Add the newest good checkpoint beside a damaged one to a message, and how to use it."""
    good, run_dir = _newest_good(path.parent), typed.run_dir
    if good is None:
        return error
    message = f"{error}\n  The newest undamaged one in its folder is {good}, step {step_of(good)}"
    if run_dir is not None and path.resolve().parent == (Path(run_dir) / "checkpoints").resolve():
        words = ["tailmatch", typed.subcommand, "--run_dir", run_dir, "--ckpt_path", str(good)]
        message += f": {shlex.join(words)}"
    return SettingsError(message)


def _others(run_dir: Path) -> str:
    """Say which checkpoints there are instead, in a run folder or a folder of checkpoints."""
    folder = run_dir / "checkpoints" if (run_dir / "checkpoints").is_dir() else run_dir
    there = sorted(path.name for path in folder.glob("*.ckpt"))
    if there:
        return f"; {folder} has {', '.join(there)}"
    if not folder.exists():
        return f"; there is no folder {folder}"
    if not holds_run(run_dir):
        return f"; {folder} has no checkpoints"
    words = ["--config", str(run_dir / "config.yaml"), "--run_dir", str(run_dir), "--ckpt_path", "auto"]
    return f": the run was stopped before its first one. To start it again: tailmatch fit {shlex.join(words)}"
