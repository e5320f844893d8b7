"""The head is trained alone at first."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks import HeadWarmup
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import FixMatch
from tests.contract import EPOCHS, Kill, Killed, assert_same_training, at_epoch_ends, last, run, saved


class Parameters(Callback):
    """Notes the parameters of the network at the start of each epoch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.seen.append({name: p.detach().clone() for name, p in pl_module.network.named_parameters()})


@pytest.mark.parametrize("epochs", [1, 2])
def test_no_bit_of_the_backbone_changes_before_the_warmup_ends(epochs: int, tmp_path: Path) -> None:
    parameters = Parameters()
    run(FixMatch, tmp_path, HeadWarmup(epochs), parameters)
    assert len(parameters.seen) == EPOCHS
    for epoch, (before, after) in enumerate(zip(parameters.seen, parameters.seen[1:], strict=False)):
        changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
        expected = set(before) if epoch >= epochs else {name for name in before if name.startswith("head.")}
        assert changed == expected


def test_a_run_killed_in_the_warmup_ends_with_the_same_bits(tmp_path: Path) -> None:
    run(FixMatch, tmp_path, HeadWarmup(2), at_epoch_ends(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(FixMatch, tmp_path, HeadWarmup(2), last(tmp_path / "killed", every_n_train_steps=3), Kill(5))
    run(FixMatch, tmp_path, HeadWarmup(2), at_epoch_ends(tmp_path / "resumed"), ckpt=tmp_path / "killed" / "last.ckpt")
    assert_same_training(saved(tmp_path / "whole"), saved(tmp_path / "resumed"))


def test_what_it_cannot_work_with_is_refused() -> None:
    with pytest.raises(SettingsError, match="epochs is 0"):
        HeadWarmup(0)
    with pytest.raises(SettingsError, match="not LightningModule"):
        HeadWarmup().setup(Trainer(logger=False, enable_checkpointing=False), LightningModule(), "fit")
