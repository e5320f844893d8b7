"""Where a run keeps its files, and which checkpoint a command line means."""

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.lightning_modules.checkpoints.remote_files import fetched_dir, local_file


def typed_values(args: list[str], *names: str) -> list[str]:
    """Values of an option on a command line, as `--name value` or `--name=value`."""
    values = [following for word, following in zip(args, args[1:], strict=False) if word in names]
    return values + [word.split("=", 1)[1] for word in args if "=" in word and word.split("=", 1)[0] in names]


def resolve_checkpoint(args: list[str]) -> Path | None:
    """The checkpoint file that a command line asks for: a path, a URL, or `last` or `best` of its `--run_dir`.

    Raises:
        SettingsError: `last` or `best` without a run folder, or a URL that cannot be fetched.
        MissingFileError: It is not there.
    """
    typed = typed_values(args, "--ckpt_path")
    if not typed or typed[-1] in ("null", "None", ""):
        return None
    name, run_dirs = typed[-1], typed_values(args, "--run_dir") or configured_run_dirs(args)
    path = local_file(name)
    if name in ("last", "best"):
        if not run_dirs:
            raise SettingsError(f"--ckpt_path {name} needs the run's folder: add --run_dir runs/<name>")
        path = Path(run_dirs[-1]) / "checkpoints" / f"{name}.ckpt"
    if not path.is_file():
        raise MissingFileError(f"no checkpoint {path}{_others(path)}")
    return path


def configured_run_dirs(args: list[str]) -> list[str]:
    """`run_dir` entries of the YAML files on a command line."""
    entries = [yaml.safe_load(Path(f).read_text()) for f in typed_values(args, "--config", "-c") if Path(f).is_file()]
    return [entry["run_dir"] for entry in entries if isinstance(entry, dict) and entry.get("run_dir")]


def check_overlays(args: list[str]) -> None:
    """Refuse a YAML file whose settings of the data or the model would be lost without a word.

    Settings without a class (`data: {init_args: ...}`) belong to the class named before; naming one afterwards starts
    from its own defaults.

    Raises:
        SettingsError: The class comes after the file.
    """
    for part in ("data", "model"):
        present, overlays = "", list[str]()
        for file, name in _namings(args, part):
            if name is None:
                overlays.append(file)
            elif name != present:
                if overlays:
                    raise SettingsError(
                        f"{overlays[0]} has settings of the {part} and comes before the {part} {name} is named, so "
                        f"they would be lost: put it after {file}"
                    )
                present, overlays = name, []


def _namings(args: list[str], part: str) -> Iterator[tuple[str, str | None]]:
    """In the order of a command line: who names a class of `part` (the last word of it), or gives settings alone."""
    for place, word in enumerate(args):
        option, _, value = word.partition("=")
        value = value or "".join(args[place + 1 : place + 2])
        if option == f"--{part}" and not Path(value).is_file():
            yield f"--{part} {value}", value.rsplit(".", 1)[-1]
        elif option in ("--config", "-c") and Path(value).is_file():
            content = yaml.safe_load(Path(value).read_text())
            section = content.get(part) if isinstance(content, dict) else None
            if isinstance(section, dict) and "class_path" in section:
                yield value, str(section["class_path"]).rsplit(".", 1)[-1]
            elif section:
                yield value, None


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
