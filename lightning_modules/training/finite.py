"""Numbers that are NaN or infinite: how they are found, and the one error that explains them."""

import math
import shlex
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.training.distributed import sum_over_processes

if TYPE_CHECKING:  # files of weights are checked without Lightning
    from pytorch_lightning import Trainer

STATISTICS = ("running_mean", "running_var")
"""Last parts of the names of normalization's statistics, which training changes."""

SHOWN = 3
"""Largest number of names in a message."""


class NotFiniteError(SettingsError):
    """Numbers of a training, of an evaluation or in a file are NaN or infinite."""


# Finding them


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """List the names of the tensors that contain NaN or infinite values.

    If there are none, as nearly always, this costs one fused norm and one wait for each device. Integers are finite;
    empty tensors and those without memory (`meta`) too.
    """
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        numbers = _numbers(tensor.detach())
        if numbers is not None:
            by_device.setdefault(numbers.device, {})[name] = numbers
    suspects = [
        pair
        for group in by_device.values()
        if not math.isfinite(float(get_total_norm(list(group.values()))))
        for pair in group.items()
    ]
    return [name for name, numbers in suspects if not bool(numbers.isfinite().all())]  # a norm may overflow


def _numbers(tensor: Tensor) -> Tensor | None:
    """Return the real numbers in a tensor, in a type that norms support; None if all are finite in any case."""
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return None
    return tensor.float() if tensor.element_size() == 1 else tensor


def tensors_in(value: object, name: str = "") -> dict[str, Tensor]:
    """Collect the tensors in nested dicts, lists and tuples, by their path, such as `0.state.3.momentum_buffer`."""
    if isinstance(value, Tensor):
        return {name: value}
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    found: dict[str, Tensor] = {}
    for key, inner in pairs:
        found |= tensors_in(inner, f"{name}.{key}" if name else str(key))
    return found


def infinite_by_design(module: nn.Module) -> frozenset[str]:
    """List the buffers of a module, as it was built, that are not finite, such as a mask of minus infinity.

    Such a buffer may also be so in a checkpoint. Parameters and the statistics of normalization must be finite.
    """
    state = module.state_dict(keep_vars=True)
    buffers = {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter) and not name.endswith(STATISTICS)
    }
    return frozenset(not_finite(buffers))


def broken_weights(module: nn.Module, by_design: Collection[str]) -> list[str]:
    """List the parameters and buffers in a module's state that are not finite, except those of `infinite_by_design`."""
    return [name for name in not_finite(tensors_in(module.state_dict())) if name not in by_design]


def agreed(names: list[str]) -> list[str]:
    """Return names on every process if one has any, so that all of them raise an error; call it on all processes."""
    elsewhere = bool(sum_over_processes(torch.tensor(len(names))))
    return names or (["numbers of another process"] if elsewhere else [])


# Explaining them


def check_weights(module: nn.Module, by_design: Collection[str]) -> None:
    """Refuse a module whose weights, in memory, are not finite.

    Args:
        module: Method or network.
        by_design: Names of `infinite_by_design`.

    Raises:
        NotFiniteError: A parameter or a buffer is not finite.
    """
    broken = broken_weights(module, by_design)
    if broken:
        raise NotFiniteError(f"the weights of this {type(module).__name__} are NaN or infinite: {listed(broken)}")


def check_file(tensors: Mapping[str, Tensor], source: str, by_design: Collection[str]) -> None:
    """Refuse weights of a file that are not finite.

    Args:
        tensors: Tensors of the file, by name.
        source: Description of the file, with which the message begins.
        by_design: Names of `infinite_by_design`.

    Raises:
        NotFiniteError: A tensor is not finite.
    """
    broken = [name for name in not_finite(tensors) if name not in by_design]
    if broken:
        raise NotFiniteError(
            f"{source} has NaN or infinite numbers in {listed(broken)}: its training had diverged. Use a checkpoint "
            "that was saved before, or train again with a lower learning rate or a wider precision"
        )


def check_predictions(rows: Tensor, module: nn.Module, trainer: "Trainer | None" = None) -> None:
    """Refuse predictions of any shape that contain NaN or infinite values. The check waits for the device.

    Args:
        rows: Predictions to check.
        module: Network or method that made them.
        trainer: Trainer in which all its processes made them and call this; None if this process did so alone.

    Raises:
        NotFiniteError: A prediction is not finite.
    """
    broken = [] if bool(rows.isfinite().all()) else ["predictions"]
    if agreed(broken) if trainer is not None else broken:
        raise predictions_error(module, trainer)


def predictions_error(module: nn.Module, trainer: "Trainer | None" = None) -> NotFiniteError:
    """Explain predictions that are not finite by the weights, or else by the precision; see `check_predictions`."""
    broken = broken_weights(module, infinite_by_design(module))
    if broken:
        what = f"predictions are NaN or infinite, and so are the weights ({listed(broken)})"
    else:
        what = (
            "predictions are NaN or infinite, and the weights are finite: numbers within the network are too large "
            "for half precision (set trainer.precision to 32-true or bf16-mixed), or for any"
        )
    if trainer is not None and _is_fitting(trainer):
        return training_error(trainer, what)
    return NotFiniteError(f"{what}; no result is reported")


def _is_fitting(trainer: "Trainer") -> bool:
    from pytorch_lightning.trainer.states import TrainerFn

    return trainer.state.fn == TrainerFn.FITTING


def training_error(trainer: "Trainer", what: str) -> NotFiniteError:
    """Make the error of a training whose numbers are not finite: what is wrong, since when, why, and the way back.

    Args:
        trainer: The fit's trainer.
        what: What is not finite, as a clause.
    """
    return NotFiniteError(
        f"{what} before step {trainer.global_step + 1}: lower the learning rate{_learning_rate(trainer)} or use a "
        f"wider precision (trainer.precision is {trainer.precision}). Nothing of this was saved; {_way_back(trainer)}"
    )


def last_good_checkpoint(trainer: "Trainer") -> Path | None:
    """Find the newest checkpoint that this run saved or was resumed from; what is saved is always finite."""
    from pytorch_lightning.callbacks import ModelCheckpoint

    saved = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    paths = [path for each in saved for path in (each.best_model_path, each.last_model_path)]
    files = [Path(path) for path in (*paths, trainer.ckpt_path) if path]
    return max((file for file in files if file.is_file()), key=lambda file: file.stat().st_mtime, default=None)


def listed(names: list[str]) -> str:
    """List the first names, and the number of the others."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _learning_rate(trainer: "Trainer") -> str:
    groups = trainer.optimizers[0].param_groups if trainer.optimizers else [{}]
    rate = groups[0].get("initial_lr", groups[0].get("lr"))
    return "" if rate is None else f" (it is {float(rate):g})"


def _way_back(trainer: "Trainer") -> str:
    file = last_good_checkpoint(trainer)
    if file is None:
        return "there is no earlier checkpoint, so start again"
    run_dir = file.parent.parent
    how = f"trainer.fit(..., ckpt_path={str(file)!r})"
    if file.stem in ("last", "best") and (run_dir / "config.yaml").is_file():
        how = f"tailmatch fit --run_dir {shlex.quote(str(run_dir))} --ckpt_path {file.stem} --model.optimizer.lr ..."
    return f"the last good checkpoint is {file}. To continue from it: {how}"
