"""Settings that come from checkpoints, below what is typed."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.command_line.settings_of_checkpoint import config_of_checkpoint
from tests.contract import source_checkpoint


class Parsed(TailmatchCLI):
    """Parses, and builds nothing."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def parse(*words: str) -> Any:
    return Parsed(list(words)).config[words[0]]


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
    settings = yaml.safe_load(config_of_checkpoint(tmp_path / "last.ckpt", subcommand) or "")
    assert settings["model"]["init_args"]["network"]["init_args"] == {"name": "resnet50", "weights": weights}
