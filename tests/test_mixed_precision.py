"""Test every method in mixed precision: the types of what it computes, and the steps that 16-mixed skips.

Lightning accepts `precision="16-mixed"` on a GPU only (on a CPU it uses `bf16-mixed`); its plugin works on both.
"""

import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import SGD

from tailmatch.callbacks import PseudoLabelWriter
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.lightning_modules import FixMatch, ImageClassifier, MoCoPretraining, SelfTraining, Supervised
from tailmatch.lightning_modules.heads import NCM, ComputedHead, TauNorm
from tailmatch.lightning_modules.training.quiet import quiet_known_noise
from tailmatch.lightning_modules.training.schedules import StepSchedule
from tests.contract import (
    EPOCHS,
    REMEDIES,
    STEPS_PER_EPOCH,
    WITHOUT_STATE,
    assert_same,
    assert_same_training,
    at_epoch_ends,
    callbacks_of,
    cases,
    each,
    last,
    post_hoc,
    run,
    saved,
    source_checkpoint,
)
from tests.mixed_precision import TYPES, Name, Steps, assert_finite, evaluator, methods, mixed, precisions

# A whole run


@pytest.mark.parametrize(
    ("method", "remedy", "precision"), each((*case, precision) for precision in TYPES for case in cases(precision))
)
def test_a_resumed_run_ends_with_the_same_bits_and_is_tested_as_in_float32(
    method: type[ImageClassifier], remedy: str, precision: Name, tmp_path: Path
) -> None:
    steps = Steps()
    saving = at_epoch_ends(tmp_path / "whole"), last(tmp_path / "middle", every_n_train_steps=7)
    trainer = run(method, tmp_path, *callbacks_of(remedy), *saving, steps, precision=mixed(precision))
    again, middle = at_epoch_ends(tmp_path / "resumed"), tmp_path / "middle" / "last.ckpt"
    run(method, tmp_path, *callbacks_of(remedy), again, ckpt=middle, precision=mixed(precision))

    whole, resumed = saved(tmp_path / "whole"), saved(tmp_path / "resumed")
    assert_same_training(whole, resumed, remedy)
    assert_finite(whole["state_dict"])
    if precision == "16-mixed":
        assert_same(whole["MixedPrecision"], resumed["MixedPrecision"], "scaler")
        assert steps.skipped[:2] == [1, 5]
    moved = [any(not torch.equal(a[name], b[name]) for name in a) for a, b in zip(steps.weights, steps.weights[1:])]  # noqa: B905
    assert moved == [step not in steps.skipped for step in range(1, STEPS_PER_EPOCH * EPOCHS + 1)]

    model, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    [in_half] = evaluator(tmp_path, precision=mixed(precision)).test(model, data, verbose=False)
    [in_float] = evaluator(tmp_path).test(model, data, verbose=False)
    assert in_half["test/loss"] == pytest.approx(in_float["test/loss"], rel=0.02)
    assert in_half["test/top1"] == pytest.approx(in_float["test/top1"], abs=0.07)  # two of the 30 images


# Skipped steps


@methods
def test_a_skipped_step_counts_and_moves_no_weight(method: type[ImageClassifier], tmp_path: Path) -> None:
    steps = Steps()
    never = mixed(init_scale=2.0**100, backoff_factor=0.5)
    trainer = run(method, tmp_path, at_epoch_ends(tmp_path), steps, precision=never)
    total = STEPS_PER_EPOCH * EPOCHS
    assert steps.skipped == list(range(1, total + 1))
    assert trainer.global_step == total
    for weights in steps.weights:
        assert_same(weights, steps.weights[0], "trained weights")
    state = saved(tmp_path)
    assert_finite(state["state_dict"])
    assert not state["optimizer_states"][0]["state"]  # no momentum of anything
    if averages := {name: average for name, average in steps.averages[-1].items() if name in steps.weights[0]}:
        assert_same(averages, {name: steps.weights[0][name] for name in averages}, "averages")
    model: Any = trainer.lightning_module
    if isinstance(model, MoCoPretraining):
        assert int(model.pointer) == total * 6 % 20
        torch.testing.assert_close(model.queue.norm(dim=1), torch.ones(20))
        for key, query in zip(model.key_network.parameters(), model.network.parameters(), strict=True):
            assert torch.equal(key, query)


def test_the_schedule_is_that_of_the_steps_skipped_or_not(tmp_path: Path) -> None:
    steps, total = Steps(), STEPS_PER_EPOCH * EPOCHS
    run(Supervised, tmp_path, steps, precision=mixed())
    assert steps.skipped[:2] == [1, 5]
    expected = [0.03 * math.cos(7 * math.pi * step / (16 * total)) for step in range(total + 1)]
    assert steps.rates == pytest.approx(expected)


@pytest.mark.parametrize("remedy", [name for name in REMEDIES if name not in WITHOUT_STATE])
def test_remedies_go_on_through_skipped_steps(remedy: str, tmp_path: Path) -> None:
    never = mixed(init_scale=2.0**100, backoff_factor=0.5)
    run(FixMatch, tmp_path, *callbacks_of(remedy), at_epoch_ends(tmp_path), precision=never)
    state = saved(tmp_path)["callbacks"][remedy]
    if "steps" in state:
        assert state["steps"] == STEPS_PER_EPOCH * (EPOCHS - 1 if remedy == "DARP" else EPOCHS)  # DARP after one epoch
    [rows] = [state[name] for name in ("predictions", "means", "probs") if name in state]
    rows = rows.reshape(-1, 10)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(len(rows)))
    assert (rows != rows[0, 0]).any()  # they began uniform


def test_averages_of_a_run_that_begins_with_skipped_steps(tmp_path: Path) -> None:
    steps = Steps()
    run(Supervised, tmp_path, steps, precision=mixed())
    assert steps.skipped[:2] == [1, 5]
    average = dict(steps.weights[0])
    for weights, found in zip(steps.weights[1:-1], steps.averages[2:], strict=True):  # noted before they are renewed
        average = {name: 0.5 * average[name] + 0.5 * weights[name] for name in average}
        torch.testing.assert_close({name: found[name] for name in average}, average)


class NanGradients(Callback):
    """Makes the gradient of one weight NaN, in every step."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(float("nan"))  # type: ignore[union-attr]


def test_a_run_without_any_finite_gradient_ends(tmp_path: Path) -> None:
    steps = Steps()
    with pytest.raises(ValueError, match=r"gradients are NaN .* no longer move \(loss scale 1.5e-05\) before step 3"):
        run(Supervised, tmp_path, steps, NanGradients(), precision=mixed(init_scale=65536.0))
    assert steps.skipped == [1, 2]


def test_the_loss_scale_is_logged(tmp_path: Path) -> None:
    steps = Steps()
    trainer = run(Supervised, tmp_path, steps, precision=mixed())
    assert trainer.callback_metrics["train/loss_scale"].item() == steps.scales[-2]  # before the last step
    assert "train/loss_scale" not in run(Supervised, tmp_path, precision=mixed("bf16-mixed")).callback_metrics


def test_no_warning_of_a_schedule_that_begins_before_the_optimizer(tmp_path: Path) -> None:
    noted = []
    for prepare in (lambda: None, quiet_known_noise):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            prepare()
            run(Supervised, tmp_path, precision=mixed())
        noted.append(any("lr_scheduler.step()" in str(warning.message) for warning in seen))
    assert noted == [True, False]


# Activations that are too large for float16


class Overflow(Callback):
    """From the second step on, the first convolution's output is a million times as large: too much for float16."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == 1:
            overflow(pl_module.network)


def overflow(network: nn.Module) -> None:
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, args, output: output * 1e6)


@methods
def test_an_overflow_in_a_network_ends_the_run_and_is_never_saved(
    method: type[ImageClassifier], tmp_path: Path
) -> None:
    run(method, tmp_path, Overflow(), max_steps=5)  # no harm in float32
    saving = last(tmp_path, every_n_train_steps=1)
    with pytest.raises(ValueError, match="became NaN or infinite before step 3"):
        run(method, tmp_path, saving, Overflow(), precision=mixed(init_scale=1.0), max_steps=5)
    state = saved(tmp_path)
    assert state["global_step"] == 1
    assert_finite(state["state_dict"])


# Accumulated and clipped gradients


def test_clipping_sees_the_mean_gradient_without_its_scale(tmp_path: Path) -> None:
    method: Any = partial(Supervised, optimizer=partial(SGD, lr=1.0), lr_scheduler=StepSchedule)
    moves = []
    for precision in (None, mixed(init_scale=1024.0)):
        steps = Steps()
        two = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.01, "max_steps": 1}
        run(method, tmp_path, steps, precision=precision, **two)
        assert len(steps.weights) == 3 and not steps.skipped
        for name, weight in steps.weights[1].items():
            assert torch.equal(weight, steps.weights[0][name])
        moves.append(
            torch.cat([(weight - steps.weights[0][name]).flatten() for name, weight in steps.weights[2].items()])
        )
    assert [move.norm().item() for move in moves] == pytest.approx([0.01, 0.01], rel=1e-3)
    assert torch.cosine_similarity(*moves, dim=0) > 0.999


def test_an_overflow_in_one_of_two_accumulated_batches_skips_both(tmp_path: Path) -> None:
    class OverflowOnce(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.fit_loop.epoch_loop.batch_progress.total.ready == 1:
                next(pl_module.parameters()).grad[0] = float("inf")  # type: ignore[index]

    steps = Steps()
    precision = mixed(init_scale=1024.0)
    trainer = run(Supervised, tmp_path, steps, OverflowOnce(), precision=precision, accumulate_grad_batches=2)
    assert trainer.global_step == STEPS_PER_EPOCH * EPOCHS / 2
    assert steps.skipped[0] == 2
    assert_same(steps.weights[2], steps.weights[0], "after the first two batches")
    assert not torch.equal(*(torch.cat([w.flatten() for w in steps.weights[at].values()]) for at in (2, 4)))
    assert_finite(steps.weights[-1])


# Evaluation and predictions


@precisions
def test_a_file_of_predictions_has_the_probs_of_float32(precision: Name, tmp_path: Path) -> None:
    trainer = run(Supervised, tmp_path)
    model, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    files = []
    for name, plugin in (("float", None), ("half", mixed(precision))):
        writer = PseudoLabelWriter(output=str(tmp_path / f"{name}.npz"), probs=True)
        evaluator(tmp_path, writer, precision=plugin).predict(model, data, return_predictions=False)
        files.append(read_pseudo_labels(tmp_path / f"{name}.npz"))
    expected, found = (file.probs for file in files)
    assert expected is not None and found is not None and found.dtype == np.float32
    assert np.abs(found.sum(axis=1, dtype=np.float32) - 1).max() < 1e-6
    assert np.abs(found - expected).max() < (0.005 if precision == "16-mixed" else 0.04)
    assert not np.array_equal(found, expected)


@precisions
def test_soft_pseudo_labels_within_a_run_sum_to_one(precision: Name, tmp_path: Path) -> None:
    soft: Any = partial(SelfTraining, soft=True)
    trainer = run(soft, tmp_path, precision=mixed(precision))
    target: Tensor = trainer.lightning_module._target  # type: ignore[assignment]
    assert target.dtype == torch.float32
    torch.testing.assert_close(target.sum(dim=1), torch.ones(len(target)), rtol=0, atol=1e-6)


def test_predictions_that_overflow_are_refused(tmp_path: Path) -> None:
    trainer = run(Supervised, tmp_path)
    model, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    overflow(model.network)
    for name, plugin in (("float", None), ("half", mixed())):
        writer = PseudoLabelWriter(output=str(tmp_path / f"{name}.npz"))
        predictor = evaluator(tmp_path, writer, precision=plugin)
        if plugin is None:
            predictor.predict(model, data, return_predictions=False)
        else:
            with pytest.raises(ValueError, match="predictions are NaN or infinite.* too large for half precision"):
                predictor.predict(model, data, return_predictions=False)
    assert [path.name for path in tmp_path.glob("*.npz*")] == ["float.npz"]


@precisions
@pytest.mark.parametrize("head", [TauNorm(), NCM()], ids=lambda head: type(head).__name__)
def test_a_computed_head_in_mixed_precision(head: ComputedHead, precision: Name, tmp_path: Path) -> None:
    file = source_checkpoint(tmp_path)
    heads = []
    for plugin in (None, mixed(precision)):
        trainer = run(post_hoc(file, head), tmp_path, at_epoch_ends(tmp_path), precision=plugin)  # type: ignore[arg-type]
        assert trainer.global_step == 1
        heads.append({name: w for name, w in saved(tmp_path)["state_dict"].items() if ".head." in name})
    for name, weight in heads[0].items():
        torch.testing.assert_close(heads[1][name], weight, rtol=0.05, atol=0.05)
