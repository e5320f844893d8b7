"""Settings that come from checkpoints, below what is typed; and classes named as in former versions."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.command_line.settings_of_checkpoint import config_of_checkpoint
from tailmatch.command_line.typed import Typed
from tailmatch.lightning_modules.networks import CifarResNet
from tests.trained_files import NAMES, trained_file


class Parsed(TailmatchCLI):
    """Parses, and builds nothing."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def parse(*words: str) -> Any:
    """The settings of a subcommand."""
    return Parsed(list(words)).config[words[0]]


def network_of(settings: Any) -> tuple[str, int]:
    """Class and depth."""
    network = settings.model.init_args.network
    return network.class_path.rsplit(".", 1)[-1], network.init_args.depth


RUN = """
seed_everything: 3
run_dir: runs/elsewhere
overwrite: true
trainer: {max_epochs: 7, callbacks: [{class_path: callbacks.DARP, init_args: {alpha: 3.0}}]}
data: {class_path: datamodules.Digits, init_args: {image_size: 8, class_counts: datamodules.DARPCounts}}
model:
  class_path: lightning_modules.FixMatch
  init_args:
    threshold: 0.7
    network: {class_path: lightning_modules.networks.cifar_resnet.CifarResNet, init_args: {depth: 8}}
    optimizer: {class_path: lightning_modules.optimization.FixMatchSGD, init_args: {lr: 0.5}}
    strong: lightning_modules.views.StrongView
"""
"""The configuration of a run of a former version."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint with the configuration above, in its run folder."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save({"config": RUN}, tmp_path / "run" / "checkpoints" / "last.ckpt")
    return tmp_path / "run" / "checkpoints" / "last.ckpt"


def test_without_a_config_the_checkpoints_settings_lie_below_what_is_typed(checkpoint: Path) -> None:
    mine = ["fit", f"--run_dir={checkpoint.parent.parent}", "--ckpt_path=last"]
    settings = parse(*mine, "--trainer.max_epochs=9", "--model.threshold=0.6")
    assert (settings.seed_everything, settings.trainer.max_epochs, settings.data.init_args.image_size) == (3, 9, 8)
    assert settings.model.init_args.threshold == 0.6 and network_of(settings) == ("CifarResNet", 8)
    assert settings.run_dir == str(checkpoint.parent.parent) and settings.ckpt_path == str(checkpoint)
    trusted = ["fit", f"--ckpt_path={checkpoint}", "--trust_checkpoint=true"]
    deeper = parse(*trusted, "--model.network.depth=14", "--run_dir=other")
    assert network_of(deeper) == ("CifarResNet", 14) and deeper.run_dir == "other"


def test_last_is_that_of_the_run_folder(checkpoint: Path) -> None:
    by_name = parse("test", f"--run_dir={checkpoint.parent.parent}", "--ckpt_path", "last")
    assert by_name.ckpt_path == str(checkpoint) and by_name.model.init_args.threshold == 0.7
    assert by_name.overwrite is False  # because the run's was true


def test_with_a_config_the_checkpoints_settings_are_not_used(checkpoint: Path) -> None:
    settings = parse("fit", "--config=demo.yaml", f"--ckpt_path={checkpoint}")
    assert (settings.seed_everything, settings.model.init_args.threshold, settings.trainer.max_epochs) == (0, 0.95, 15)
    assert settings.ckpt_path == str(checkpoint)


@pytest.mark.parametrize("name", ["FixMatch", "lightning_modules.FixMatch", "tailmatch.lightning_modules.FixMatch"])
def test_the_same_class_named_otherwise_keeps_its_settings(name: str, checkpoint: Path) -> None:
    settings = parse("fit", f"--ckpt_path={checkpoint}", "--trust_checkpoint=true", f"--model={name}")
    assert settings.model.init_args.threshold == 0.7 and network_of(settings) == ("CifarResNet", 8)


def test_another_class_starts_from_its_own_defaults(checkpoint: Path) -> None:
    trusted = ["fit", f"--ckpt_path={checkpoint}", "--trust_checkpoint=true"]
    model = parse(*trusted, "--model=MixMatch").model
    assert model.class_path == "tailmatch.lightning_modules.MixMatch"
    assert model.init_args.optimizer.class_path.endswith(".MixMatchAdam")
    assert model.init_args.network.class_path.endswith(".WideResNet")
    data = parse(*trusted, "--data=CIFAR10").data
    assert data.class_path == "tailmatch.datamodules.CIFAR10" and "image_size" not in data.init_args


def class_paths(settings: Any) -> Iterator[str]:
    """All in a configuration."""
    if isinstance(settings, dict):
        yield from [value for name, value in settings.items() if name == "class_path"]
    for value in settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list) else ():
        yield from class_paths(value)


def test_what_is_saved_names_public_paths(checkpoint: Path) -> None:
    trusted = ["fit", f"--ckpt_path={checkpoint}", "--trust_checkpoint=true"]
    cli = Parsed([*trusted, "--trainer.callbacks+=callbacks.LastEvaluations"])
    saved = list(class_paths(yaml.safe_load(cli.parser.dump(cli.config))))
    assert sorted(saved) == [
        "tailmatch.callbacks.DARP",
        "tailmatch.callbacks.LastEvaluations",
        "tailmatch.datamodules.DARPCounts",
        "tailmatch.datamodules.Digits",
        "tailmatch.lightning_modules.FixMatch",
        "tailmatch.lightning_modules.networks.CifarResNet",
        "tailmatch.lightning_modules.training.CosineDecay",
        "tailmatch.lightning_modules.training.FixMatchSGD",
        "tailmatch.lightning_modules.views.StrongView",
    ]
    top = {name.split(".")[0] for name in sys.modules}  # pytest makes this folder importable
    assert not top & {"callbacks", "datamodules", "lightning_modules"}


def test_short_names_and_former_paths_can_be_typed_anywhere() -> None:
    words = [
        "--network=WideResNet",
        "--network.widen=8",
        "--optimizer=MixMatchAdam",
        "--strong=lightning_modules.views.WeakView",
    ]
    typed = [f"--model.{word[2:]}" for word in words]
    settings = parse("fit", "--data=Digits", "--model=lightning_modules.FixMatch", "--trainer.callbacks+=DARP", *typed)
    arguments = settings.model.init_args
    assert arguments.network.class_path == "tailmatch.lightning_modules.networks.WideResNet"
    assert arguments.optimizer.class_path == "tailmatch.lightning_modules.training.MixMatchAdam"
    assert arguments.strong.class_path == "tailmatch.lightning_modules.views.WeakView"
    assert [callback.class_path for callback in settings.trainer.callbacks] == ["tailmatch.callbacks.DARP"]


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A checkpoint to begin with, whose network is not the default."""
    return trained_file(tmp_path / "source.ckpt", CifarResNet(len(NAMES), depth=14), {"depth": 14})


def test_a_method_that_begins_with_a_checkpoint_takes_its_network(source: str, tmp_path: Path) -> None:
    begin = ["fit", "--data=Digits", "--model=ClassifierRetraining", f"--run_dir={tmp_path}"]
    assert network_of(parse(*begin, f"--model.checkpoint={source}")) == ("CifarResNet", 14)
    assert network_of(parse(*begin, f"--model.init_args.checkpoint={source}")) == ("CifarResNet", 14)
    changed = parse(*begin, f"--model.checkpoint={source}", "--model.network.depth=20")
    assert network_of(changed) == ("CifarResNet", 20)
    own = parse(*begin, f"--model.checkpoint={source}", "--model.network=WideResNet")
    assert network_of(own) == ("WideResNet", 28)


def test_the_checkpoint_to_begin_with_may_be_named_in_a_file(source: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"model": {"init_args": {"checkpoint": source}}}))
    settings = parse("fit", "--config=data/digits_lt.yaml", "--config=methods/crt.yaml", f"--config={file}")
    assert network_of(settings) == ("CifarResNet", 14)


def test_an_ensemble_takes_the_data_of_its_first_member(source: str, tmp_path: Path) -> None:
    content = torch.load(source, weights_only=True)
    data = {"class_path": "datamodules.Digits", "init_args": {"image_size": 8}}
    torch.save(content | {"config": yaml.safe_dump({"seed_everything": 4, "data": data})}, tmp_path / "first.ckpt")
    ensemble = ["test", "--model=Ensemble", f"--model.checkpoints=[{tmp_path / 'first.ckpt'}, {source}]"]
    settings = parse(*ensemble)
    assert (settings.seed_everything, settings.data.init_args.image_size) == (4, 8)
    assert parse(*ensemble, "--data.image_size=16", "--seed_everything=1").data.init_args.image_size == 16


@pytest.mark.parametrize(("subcommand", "weights"), [("test", None), ("fit", "IMAGENET1K_V2")])
def test_a_checkpoint_is_tested_without_the_weights_that_it_began_with(
    subcommand: str, weights: str | None, tmp_path: Path
) -> None:
    network = {
        "class_path": "tailmatch.lightning_modules.networks.TorchvisionNetwork",
        "init_args": {"name": "resnet50", "weights": "IMAGENET1K_V2"},
    }
    config = {"model": {"class_path": "tailmatch.lightning_modules.FixMatch", "init_args": {"network": network}}}
    torch.save({"config": yaml.safe_dump(config)}, tmp_path / "last.ckpt")
    settings = yaml.safe_load(config_of_checkpoint(tmp_path / "last.ckpt", Typed.read([subcommand]), None) or "")
    assert settings["model"]["init_args"]["network"]["init_args"] == {"name": "resnet50", "weights": weights}
