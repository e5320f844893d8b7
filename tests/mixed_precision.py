"""Shared by the tests of mixed precision: its plugin on a CPU, and a record of a run step by step."""

import copy
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from torch import Tensor

from tests.contract import each

Name = Literal["bf16-mixed", "16-mixed"]

TYPES: dict[Name, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

methods = pytest.mark.parametrize("method", each())
precisions = pytest.mark.parametrize("precision", TYPES)

# Of a scale that overflows in step 1, does not in steps 2 to 4, and overflows again in step 5.
SKIPPING = {"init_scale": 2.0**32, "backoff_factor": 2.0**-16, "growth_factor": 2.0**16, "growth_interval": 3}


def mixed(precision: Name = "16-mixed", **scaler: Any) -> MixedPrecision:
    """Mixed precision on the CPU."""
    made = torch.amp.GradScaler("cpu", **{**SKIPPING, **scaler}) if precision == "16-mixed" else None
    return MixedPrecision(precision, "cpu", made)


def evaluator(folder: Path, *callbacks: Callback, precision: Precision | None = None) -> Trainer:
    return Trainer(
        accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), logger=False,
        plugins=[precision] if precision else [], use_distributed_sampler=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


def assert_finite(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        assert tensor.isfinite().all(), name


class Steps(Callback):
    """Notes after each step the loss scale, the trained and the averaged weights, and the learning rate."""

    def __init__(self) -> None:
        self.scales: list[float] = []
        self.rates: list[float] = []
        self.weights: list[dict[str, Tensor]] = []
        self.averages: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._note(trainer, pl_module)

    def _note(self, trainer: Trainer, pl_module: Any) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.scales.append(scaler.get_scale() if scaler else 1.0)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.weights.append({name: p.detach().clone() for name, p in pl_module.named_parameters() if p.requires_grad})
        averaging = pl_module._averaging
        self.averages.append(copy.deepcopy(averaging._average) if averaging else {})

    @property
    def skipped(self) -> list[int]:
        """Steps, from 1, after which the scale fell."""
        return [step for step in range(1, len(self.scales)) if self.scales[step] < self.scales[step - 1]]
