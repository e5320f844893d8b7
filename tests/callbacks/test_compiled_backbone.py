"""The backbone is compiled for a fit, and for nothing else."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from tailmatch.callbacks import CompiledBackbone
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.networks import CategoryNetwork, CifarResNet, EfficientNet
from tests.contract import assert_same_training, at_epoch_ends, run, saved


class Compiled(Callback):
    """Counts the graphs of the compiler at the end of the training, and notes whether a copy is compiled."""

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        self.of_copy = copy.deepcopy(pl_module.network).backbone._compiled_call_impl
        self.network = pl_module.network


def test_a_compiled_training_has_the_same_bits_where_the_compiler_keeps_the_operations(tmp_path: Path) -> None:
    seen = Compiled()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    run(FixMatch, tmp_path, at_epoch_ends(tmp_path / "plain"))
    assert not torch._dynamo.utils.counters["stats"]
    run(FixMatch, tmp_path, CompiledBackbone("eager"), seen, at_epoch_ends(tmp_path / "compiled"))
    assert seen.graphs >= 2  # with and without gradient
    assert seen.of_copy is None and seen.network.backbone._compiled_call_impl is None
    assert_same_training(saved(tmp_path / "plain"), saved(tmp_path / "compiled"))


def test_an_error_of_the_training_leaves_the_module_as_it_was() -> None:
    method, compiled = (
        FixMatch(3, network=CategoryNetwork(3, ["kind"], network=CifarResNet(3, depth=8))),
        CompiledBackbone("eager"),
    )
    trainer = Trainer(logger=False, enable_checkpointing=False)
    compiled.on_fit_start(trainer, method)
    inner = method.network.backbone.backbone
    assert inner._compiled_call_impl is not None
    compiled.on_exception(trainer, method, RuntimeError())
    assert inner._compiled_call_impl is None


def test_what_it_cannot_compile_is_refused() -> None:
    trainer = Trainer(logger=False, enable_checkpointing=False)
    with pytest.raises(SettingsError, match="not LightningModule"):
        CompiledBackbone().on_fit_start(trainer, LightningModule())
    with pytest.raises(SettingsError, match="cannot compile the backbone of EfficientNet, which calls parts of it"):
        CompiledBackbone().on_fit_start(trainer, FixMatch(3, network=EfficientNet(3, "b0")))
