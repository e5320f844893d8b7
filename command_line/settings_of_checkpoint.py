"""Read settings from checkpoints; typed options take precedence over them. There is one function for each source."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tailmatch.command_line.typed import Typed
from tailmatch.command_line.yaml_text import parse_yaml
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.remote_files import local_file
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint, settings_of, unknown_of
from tailmatch.lightning_modules.checkpoints.weights import read_file
from tailmatch.lightning_modules.inference.class_paths import public_path
from tailmatch.lightning_modules.inference.loading import settings_to_rebuild
from tailmatch.lightning_modules.inference.trust import Stranger, class_named, names_in, strip_names

_PLAIN: dict[str, tuple[type, ...]] = {"accelerator": (str,), "precision": (int, str)}
"""Settings of the trainer that a test takes from a checkpoint that the user does not vouch for.

How many processes are started, and how, is the user's to say: `devices: 1000` would start a thousand.
"""

_CHANGE_PREDICTIONS = ("tailmatch.callbacks.LogitAdjustment",)
"""Callbacks of this package that a prediction needs; they know no path."""

_NEVER = ("overwrite", "cache_dir", "output", "run_dir")
"""Where to write, which is the user's to say."""

_OF_TRAINING = ("optimizer", "lr_scheduler", "pretrained")


def is_vouched_for(typed: Typed, checkpoint: Path) -> bool:
    """Tell whether the user vouches for a checkpoint: it is of a run of theirs, or they trust its maker.

    The user says so by naming the run's folder, `--run_dir runs/mine`; the place of a file alone does not count.
    """
    if trusts(typed):
        return True
    run_dir = typed.run_dir
    return run_dir is not None and checkpoint.resolve().parent == (Path(run_dir) / "checkpoints").resolve()


def trusts(typed: Typed) -> bool:
    """Tell whether `--trust_checkpoint true` was typed; a configuration cannot say so."""
    return (typed.values("--trust_checkpoint") or ["false"])[-1].lower() == "true"


def stranger_of(typed: Typed, checkpoint: Path | None) -> Stranger | None:
    """Return the checkpoint whose settings are taken, and what they may name; None if the user vouches for it.

    The checkpoint is `checkpoint`, or the first one of an ensemble.

    Raises:
        SettingsError: A fit would continue with the settings of a file that the user does not vouch for.
    """
    source = checkpoint or first_member(typed)
    if typed.has_settings or source is None or is_vouched_for(typed, source):
        return None
    if checkpoint is not None and typed.subcommand == "fit":
        folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None
        mine = "" if folder is None else f"If it is a run of yours, name its folder too, --run_dir {folder}. "
        raise SettingsError(
            f"--ckpt_path {checkpoint} would continue with the settings in that file, which may write anywhere. {mine}"
            "If you trust whoever made it, add --trust_checkpoint true; or give your own settings with --config"
        )
    content = read_file(str(source), mapped=True)
    settings = settings_of(content, str(source)) if isinstance(content, dict) else {}
    roots = {public_path(settings[part]["class_path"]) for part in ("model", "data") if part in settings}
    return Stranger(str(source), frozenset(roots.union(_CHANGE_PREDICTIONS)), names_in(typed.texts()))


def config_of_checkpoint(path: Path, typed: Typed, stranger: Stranger | None) -> str | None:
    """Read the configuration in a checkpoint as YAML; None if it has none.

    For all subcommands but `fit`, the network is set to fetch no pretrained weights, and the run's `overwrite` is left
    out.

    Args:
        path: The checkpoint.
        typed: What is typed, which wins.
        stranger: Given if the user does not vouch for the file: then only what an evaluation needs is taken.

    Raises:
        SettingsError: The checkpoint does not say how to make its network.
    """
    content = read_file(str(path), mapped=True)
    content = content if isinstance(content, dict) else {}
    settings, unknown = settings_of(content, str(path)), unknown_of(content)
    if "network" in unknown:
        raise SettingsError(
            f"checkpoint {path} cannot say how to make its network ({unknown['network']}, and a file holds no code): "
            f"use it in Python, tailmatch.load({str(path)!r}, network=...)"
        )
    if not settings and typed.class_of("model") is None:
        raise SettingsError(
            f"checkpoint {path} does not contain the settings of its run: give its --config, or --model and --data "
            "with their options"
        )
    if stranger is not None:
        settings = needed_to_evaluate(settings, typed)
    if not settings or typed.subcommand == "fit":
        return yaml.safe_dump(settings, sort_keys=False) if settings else None
    settings.pop("overwrite", None)
    if "model" in settings:
        settings["model"]["init_args"] = settings_to_rebuild(settings["model"].get("init_args", {}))
    return yaml.safe_dump(settings)


def needed_to_evaluate(settings: dict[str, Any], typed: Typed) -> dict[str, Any]:
    """Keep what an evaluation needs of a checkpoint's settings: nothing that writes, logs, trains or names a folder.

    A method or data that the user names anew starts from its own defaults and takes nothing from the checkpoint.
    """
    kept = {name: settings[name] for name in ("seed_everything",) if isinstance(settings.get(name), int)}
    for part in ("model", "data"):
        section = settings.get(part)
        named = typed.class_of(part)
        if section and (named is None or named == section["class_path"].rpartition(".")[2]):
            arguments = {
                name: value for name, value in section.get("init_args", {}).items() if name not in _OF_TRAINING
            }
            kept[part] = {"class_path": section["class_path"], "init_args": strip_names(arguments, _NEVER)}
    trainer = settings.get("trainer") or {}
    plain = {name: trainer[name] for name, kinds in _PLAIN.items() if isinstance(trainer.get(name), kinds)}
    listed = trainer.get("callbacks")
    callbacks = [
        {"class_path": callback["class_path"], "init_args": strip_names(callback.get("init_args", {}), _NEVER)}
        for callback in (listed if isinstance(listed, list) else [listed])
        if isinstance(callback, dict) and public_path(str(callback.get("class_path"))) in _CHANGE_PREDICTIONS
    ]
    return kept | {"trainer": plain | ({"callbacks": callbacks} if callbacks else {})}


def first_member(typed: Typed) -> Path | None:
    """Find the first of an ensemble's typed checkpoints; None if none is typed."""
    values = typed.values("--model.checkpoints")
    members = parse_yaml(values[-1], "--model.checkpoints") if values else None
    return Path(local_file(str(members[0]))) if isinstance(members, list) and members else None


def files_of(data: Any) -> str:
    """Say which files and folders the parsed settings of a data module name."""
    arguments = data.get("init_args")
    given = vars(arguments) if arguments else {}
    named = [f"{name} {value}" for name, value in given.items() if _is_there(value)]
    return " ".join([data.class_path.rpartition(".")[2], *named])


def _is_there(value: object) -> bool:
    with suppress(OSError, ValueError):  # a text that can be no path
        return isinstance(value, str) and bool(value) and Path(value).exists()
    return False


def data_of_members(typed: Typed) -> str | None:
    """Read the data and the seed (on which the split depends) of the first checkpoint of a typed ensemble, as YAML."""
    member = first_member(typed)
    if member is None:
        return None
    settings = read_checkpoint(str(member)).settings
    if not is_vouched_for(typed, member):
        settings = needed_to_evaluate(settings, typed)
    return yaml.safe_dump({name: settings[name] for name in ("seed_everything", "data") if name in settings})


def network_of_source(model: Any) -> str | None:
    """Read the network of the checkpoint that a method begins with, as YAML; None if it has none.

    Args:
        model: The parsed settings of the method.
    """
    source = model.init_args.get("checkpoint")
    network = None if source is None else read_checkpoint(source).network
    if network is None:
        return None
    arguments = {"network": settings_to_rebuild(network)}
    return yaml.safe_dump({"model": {"class_path": model.class_path, "init_args": arguments}})


def class_names_of_source(settings: Any) -> list[str]:
    """Read the class names of the checkpoint that a command uses or a method begins with; empty without one.

    Args:
        settings: The parsed settings of the subcommand.
    """
    arguments = settings.model.get("init_args", {})
    members = arguments.get("checkpoints") or [None]
    source = settings.get("ckpt_path") or arguments.get("checkpoint") or members[0]
    content = None if source is None else read_file(str(source), mapped=True)
    names = content.get("class_names") if isinstance(content, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def check_weights(subcommand: str, method: str, checkpoint: Path | None) -> None:
    """Refuse a test without trained weights, and weights or a training for a method that brings its own.

    Raises:
        SettingsError: Weights are missing, or are given twice.
    """
    name, brings = method.rsplit(".", 1)[-1], class_named(method).brings_weights
    if subcommand == "fit" and brings:
        raise SettingsError(f"{name} has its own weights and cannot be trained: use test, validate or predict")
    if subcommand != "fit" and brings and checkpoint is not None:
        raise SettingsError(f"{name} brings its weights: leave out --ckpt_path {checkpoint}")
    if subcommand != "fit" and not brings and checkpoint is None:
        raise SettingsError(f"{subcommand} needs trained weights: add --ckpt_path best, last or a file")
