"""Exponential moving average of a module's weights, used for evaluation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tailmatch.datamodules.arguments import check_below_one
from tailmatch.lightning_modules.training.distributed import take_from_first

Result = TypeVar("Result")

TRAINED_WEIGHTS = "trained_weights"
"""Checkpoint key of the weights that the optimizer updates; `state_dict` holds the averaged ones."""


class WeightAveraging(Callback):
    """An exponential moving average, `average <- decay * average + (1 - decay) * weights` after every optimizer step.

    Parameters and BatchNorm's running statistics are averaged; of several processes, the statistics of the first, as
    those are saved, and begin the next step of all. Integer buffers (BatchNorm's counter) and other state (a
    method's own buffers) are not: Lightning's `EMAWeightAveraging` either averages and truncates them or copies the
    statistics as they are.

    Validation and test use the averages. A checkpoint holds them in `state_dict`, so whatever loads it gets the weights
    that were evaluated; it also holds the trained weights, so a resumed run is exact. When a fit ends, the averages
    become the module's weights.

    Args:
        decay: Weight of the previous average, in [0, 1); 0.999 in FixMatch and MixMatch.

    Raises:
        SettingsError: `decay` lies outside [0, 1).
    """

    def __init__(self, decay: float) -> None:
        check_below_one("ema_decay", decay, ", or null for no averaging")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._swapped = False
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the present weights, unless a checkpoint provided the averages."""
        weights = averaged_tensors(pl_module)
        if self._average.keys() != weights.keys():
            self._average = {name: weight.detach().clone() for name, weight in weights.items()}
        else:
            self._average = {name: self._average[name].to(weight.device) for name, weight in weights.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn the steps that are done: at the start of a fit, Lightning has not restored those of a checkpoint."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Update the averages once per optimizer step (not per batch under gradient accumulation)."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        weights = averaged_tensors(pl_module)
        take_from_first([weight for weight in weights.values() if not isinstance(weight, nn.Parameter)])
        average_into(list(self._average.values()), list(weights.values()), self.decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swap in the averages."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swap the trained weights back in."""
        if self._swapped:
            self._swap(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the trained weights if validation was interrupted."""
        if self._swapped:
            self._swap(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averages in the module."""
        self._swap(pl_module)
        self._swapped = False
        self._average = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the averages in `state_dict`, and the trained weights under `TRAINED_WEIGHTS`."""
        state = checkpoint["state_dict"]
        if self._average and self._swapped:  # saved during a validation
            checkpoint[TRAINED_WEIGHTS] = dict(self._average)
        elif self._average:
            checkpoint[TRAINED_WEIGHTS] = {name: state[name] for name in self._average}
            checkpoint["state_dict"] = {**state, **self._average}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """On a resume, take the averages from `state_dict` and load the trained weights into the module."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        names = averaged_tensors(pl_module).keys()
        self._average = {name: checkpoint["state_dict"][name].clone() for name in names}
        if TRAINED_WEIGHTS in checkpoint:
            pl_module.load_state_dict({**checkpoint["state_dict"], **checkpoint[TRAINED_WEIGHTS]})

    @contextmanager
    def applied(self, pl_module: LightningModule) -> Iterator[None]:
        """Put the averages into the module within a `with` block during a fit."""
        self._swap(pl_module)
        try:
            yield
        finally:
            self._swap(pl_module)

    def call(self, pl_module: LightningModule, function: Callable[..., Result], *inputs: Any) -> Result:
        """Call a function of the module's with the averages in place of the weights, in a training step of a fit.

        Nothing is copied: for the call, the names of the weights mean the averages. Copying them into the weights, as
        `applied` does, would not do in a step: autocast keeps a half-precision copy of each weight for the whole step,
        and autograd refuses weights that changed after a forward pass.
        """
        averages = {f"module.{name}": average for name, average in self._average.items()}
        result: Result = functional_call(_Call(pl_module), averages, (function, *inputs))
        return result

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        for name, weight in averaged_tensors(pl_module).items():
            kept = weight.detach().clone()
            weight.copy_(self._average[name])
            self._average[name].copy_(kept)
        self._swapped = not self._swapped


class _Call(nn.Module):
    """A module whose forward pass is a call of any function, for `functional_call`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *inputs: Any) -> Any:
        return function(*inputs)


def average_into(averages: list[Tensor], weights: list[Tensor], decay: float) -> None:
    """Move floating-point averages to `decay * average + (1 - decay) * weight`, in place and without gradient."""
    if averages:
        get_ema_multi_avg_fn(decay)(averages, weights, None)  # type: ignore[no-untyped-call]


def averaged_tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return the tensors that training changes by name: parameters, and BatchNorm's running statistics.

    Frozen parameters and the statistics of a frozen BatchNorm are left out: an average of equal numbers is that number,
    except for the sign of a zero.
    """
    tensors: dict[str, Tensor] = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None and part.running_var is not None:
            own = list(part.parameters())
            if not own or any(p.requires_grad for p in own):
                tensors |= {f"{name}.running_mean": part.running_mean, f"{name}.running_var": part.running_var}
    return tensors
