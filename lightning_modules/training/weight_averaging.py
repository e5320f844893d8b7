"""Exponential moving average of a module's weights, used for evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tailmatch.datamodules.arguments import SettingsError

TRAINED_WEIGHTS = "trained_weights"
"""Checkpoint key of the weights that the optimizer works on; `state_dict` holds the averaged ones."""


class WeightAveraging(Callback):
    """Keeps `average <- decay * average + (1 - decay) * weights` after every optimizer step.

    Averaged are parameters and BatchNorm's running statistics. Integer buffers (BatchNorm's counter) and
    other state (a method's own buffers) are left alone: Lightning's `EMAWeightAveraging` either averages and
    truncates them or copies the statistics as they are.

    Validation and test use the averages; checkpoints hold them in `state_dict`, so whatever loads a
    checkpoint gets the weights that were evaluated, and the trained weights beside them, so a resumed run is
    exact. When a fit ends, the averages are the module's weights.

    Args:
        decay: In [0, 1); FixMatch and MixMatch: 0.999.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise SettingsError(f"ema_decay is {decay}; it must be in [0, 1), or null for no averaging")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._swapped = False
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin from the present weights, unless a checkpoint brought the averages."""
        weights = averaged_tensors(pl_module)
        if self._average.keys() != weights.keys():
            self._average = {name: weight.detach().clone() for name, weight in weights.items()}
        else:
            self._average = {name: self._average[name].to(weight.device) for name, weight in weights.items()}
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Average, once an optimizer step (not a batch, under gradient accumulation)."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        average_into(list(self._average.values()), list(averaged_tensors(pl_module).values()), self.decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the averages."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the trained weights."""
        if self._swapped:
            self._swap(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the trained weights back if validation was interrupted."""
        if self._swapped:
            self._swap(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averages in the module."""
        self._swap(pl_module)
        self._swapped = False
        self._average = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the averages into `state_dict`, the trained weights beside it."""
        if self._average and not self._swapped:
            state = checkpoint["state_dict"]
            checkpoint[TRAINED_WEIGHTS] = {name: state[name] for name in self._average}
            checkpoint["state_dict"] = {**state, **self._average}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """On a resume, take the averages from `state_dict` and give the module its trained weights."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        names = averaged_tensors(pl_module).keys()
        self._average = {name: checkpoint["state_dict"][name].clone() for name in names}
        if TRAINED_WEIGHTS in checkpoint:
            pl_module.load_state_dict({**checkpoint["state_dict"], **checkpoint[TRAINED_WEIGHTS]})

    @contextmanager
    def applied(self, pl_module: LightningModule) -> Iterator[None]:
        """The averages in the module, for the time of a `with` during a fit."""
        self._swap(pl_module)
        try:
            yield
        finally:
            self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        for name, weight in averaged_tensors(pl_module).items():
            kept = weight.detach().clone()
            weight.copy_(self._average[name])
            self._average[name].copy_(kept)
        self._swapped = not self._swapped


def average_into(averages: list[Tensor], weights: list[Tensor], decay: float) -> None:
    """Move floating-point averages to `decay * average + (1 - decay) * weight`, in place and without gradient."""
    if averages:
        get_ema_multi_avg_fn(decay)(averages, weights, None)  # type: ignore[no-untyped-call]


def averaged_tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """What training moves, by its name in the state dict: parameters, and BatchNorm's running statistics.

    Frozen parameters and the statistics of a frozen BatchNorm are left out: an average of equal numbers is that
    number, but for the sign of a zero.
    """
    tensors: dict[str, Tensor] = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None and part.running_var is not None:
            own = list(part.parameters())
            if not own or any(p.requires_grad for p in own):
                tensors |= {f"{name}.running_mean": part.running_mean, f"{name}.running_var": part.running_var}
    return tensors
