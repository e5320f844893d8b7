"""Train a method twice, the second time with its classes in another order: the results must be permuted, else equal."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor
from torch.optim import SGD

from tailmatch.datamodules import ListedCounts
from tailmatch.lightning_modules.bases.averaged_teacher import AveragedTeacher
from tailmatch.lightning_modules.bases.mixing import MixingClassifier
from tests.contract import prepare
from tests.joint_batches import Recorder, SmoothNetwork

ORDER = torch.tensor([7, 2, 9, 0, 4, 1, 8, 3, 6, 5])
"""The new number of each of 10 classes. Tensors with an axis of 10 are permuted, so that no other axis may have 10."""

COUNTS = [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]
"""Labeled images of each class, all different: equal ones are ranked by their number."""

STEPS = 5

CLASSES = ("memory.labels", "memory.voted", "memory.won_voted")
"""End the names of tensors whose values are classes, with -1 for none."""

READS_CLASSES = "head.gate.0.weight"
"""Ends the name of a weight whose last columns, three times 10, read a number of each class."""


def assert_follows_classes(method: Any, folder: Path, make_callbacks: Callable[[], Sequence[Callback]] = list) -> None:
    """Assert that a method has permuted weights, buffers and the same losses if its classes are permuted.

    Args:
        method: Method class, or a partial of one.
        folder: Folder for files of the runs.
        make_callbacks: Makes the remedies; where one has a list as its `target`, this is permuted too.
    """
    first, batches, _ = _train(method, folder, make_callbacks)
    number = torch.arange(len(ORDER))
    plain, _, losses = _train(method, folder, make_callbacks, number, batches, first)
    permuted, _, permuted_losses = _train(method, folder, make_callbacks, ORDER, batches, first)
    assert len(losses) == STEPS and permuted_losses == pytest.approx(losses, rel=1e-3)
    for name, expected in _renumbered(plain, ORDER).items():
        torch.testing.assert_close(
            permuted[name], expected, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert any(not torch.equal(permuted[name], value) for name, value in plain.items())


def _train(
    method: Any,
    folder: Path,
    make_callbacks: Callable[[], Sequence[Callback]],
    order: Tensor | None = None,
    batches: list[Any] | None = None,
    first: dict[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], list[Any], list[float]]:
    """Train on batches and from weights, both renumbered; return weights, batches with their views, and losses.

    Without an order, it returns the weights before the training, and the batches of the data.
    """
    kind = method.func if isinstance(method, partial) else method
    decay = 0.5 if issubclass(kind, AveragedTeacher) else None
    changed: dict[str, Any] = {"optimizer": partial(SGD, lr=0.1, momentum=0.9), "ema_decay": decay}
    if issubclass(kind, MixingClassifier):
        changed["rampup_steps"] = 2
    recorder, callbacks = Recorder(), make_callbacks()
    trainer, model, data = prepare(
        partial(method, **changed), folder, *callbacks, recorder, _Losses(), network=SmoothNetwork, max_steps=STEPS,
        limit_val_batches=0, enable_checkpointing=False,
    )  # fmt: skip
    counts = COUNTS if order is None else torch.tensor(COUNTS)[order.argsort()].tolist()
    data.class_counts_rule = ListedCounts(counts, [6] * len(COUNTS))
    if order is None or batches is None or first is None:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        trainer.fit(model, data)
        return state, recorder.batches, []
    for callback in callbacks:
        if isinstance(getattr(callback, "target", None), list):
            callback.target = torch.tensor(callback.target)[order.argsort()].tolist()  # type: ignore[attr-defined]
    model.load_state_dict(_renumbered(first, order))
    given = iter(batches)

    def replay(*args: Any) -> Any:
        torch.manual_seed(trainer.global_step)
        return _relabeled(next(given), order)

    model.on_after_batch_transfer = replay  # type: ignore[method-assign]
    trainer.fit(model, data)
    [losses] = [each.values for each in trainer.callbacks if isinstance(each, _Losses)]  # type: ignore[attr-defined]
    return model.state_dict(), batches, losses


class _Losses(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.values.append(float(outputs["loss"]))


def _renumbered(state: dict[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """Permute every axis whose size is the number of classes, and the values that are classes."""
    old = order.argsort()
    changed = {
        name: _renamed(tensor, order) if name.endswith(CLASSES) else _permuted(tensor, old)
        for name, tensor in state.items()
    }
    for name in [name for name in state if name.endswith(READS_CLASSES)]:
        blocks = [block.index_select(1, old) for block in state[name][:, -30:].split(10, dim=1)]
        changed[name] = torch.cat([state[name][:, :-30], *blocks], dim=1)
    return changed


def _renamed(classes: Tensor, order: Tensor) -> Tensor:
    return torch.where(classes < 0, classes, order[classes.long()].to(classes.dtype))


def _permuted(tensor: Tensor, old: Tensor) -> Tensor:
    for axis, size in enumerate(tensor.shape):
        tensor = tensor.index_select(axis, old) if size == len(old) else tensor
    return tensor


def _relabeled(batch: Any, order: Tensor) -> Any:
    """Copy a batch with the new numbers of its targets; -1 stays."""
    if isinstance(batch, dict):
        return {
            key: _renamed(value, order) if key == "target" else _relabeled(value, order) for key, value in batch.items()
        }
    return batch
