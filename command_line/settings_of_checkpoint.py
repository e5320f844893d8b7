"""Read settings from checkpoints; typed options take precedence over them. There is one function for each source."""

from pathlib import Path
from typing import Any

import yaml

from tailmatch.command_line.typed import Typed
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint, settings_of, unknown_of
from tailmatch.lightning_modules.checkpoints.weights import read_file
from tailmatch.lightning_modules.inference.class_paths import class_named
from tailmatch.lightning_modules.inference.trained_network import network_to_rebuild


def config_of_checkpoint(path: Path, subcommand: str) -> str | None:
    """Read the configuration in a checkpoint as YAML; None if it has none.

    For all subcommands but `fit`, the network is set to fetch no pretrained weights, and the run's `overwrite` is left
    out.

    Raises:
        SettingsError: The checkpoint does not say how to make its network.
    """
    content = read_file(str(path), mapped=True)
    settings, unknown = (settings_of(content), unknown_of(content)) if isinstance(content, dict) else ({}, {})
    if "network" in unknown:
        raise SettingsError(
            f"checkpoint {path} cannot say how to make its network ({unknown['network']}, and a file holds no code): "
            f"use it in Python, tailmatch.load({str(path)!r}, network=...)"
        )
    if not settings or subcommand == "fit":
        return yaml.safe_dump(settings, sort_keys=False) if settings else None
    settings.pop("overwrite", None)
    arguments = settings.get("model", {}).get("init_args", {})
    if isinstance(arguments.get("network"), dict):
        arguments["network"] = network_to_rebuild(arguments["network"])
    return yaml.safe_dump(settings)


def data_of_members(typed: Typed) -> str | None:
    """Read the data and the seed (on which the split depends) of the first checkpoint of a typed ensemble, as YAML."""
    values = typed.values("--model.checkpoints")
    members = yaml.safe_load(values[-1]) if values else None
    if not isinstance(members, list) or not members:
        return None
    settings = read_checkpoint(str(members[0])).settings
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
    arguments = {"network": network_to_rebuild(network)}
    return yaml.safe_dump({"model": {"class_path": model.class_path, "init_args": arguments}})


def check_weights(subcommand: str, method: str, checkpoint: Path | None) -> None:
    """Refuse a test without trained weights, and weights or a training for a method that brings its own.

    Raises:
        SettingsError: Weights are missing, or are given twice.
    """
    name, brings = method.rsplit(".", 1)[-1], class_named(method).brings_weights
    if subcommand == "fit" and brings:
        raise SettingsError(f"{name} is made of trained checkpoints and is not trained: use test, validate or predict")
    if subcommand != "fit" and brings and checkpoint is not None:
        raise SettingsError(f"{name} brings its weights: leave out --ckpt_path {checkpoint}")
    if subcommand != "fit" and not brings and checkpoint is None:
        raise SettingsError(f"{subcommand} needs trained weights: add --ckpt_path best, last or a file")
