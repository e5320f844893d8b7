"""Pseudo-label statistics by hand."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor

from tailmatch.callbacks import DARP, DistributionAlignment, LastEvaluations, PseudoLabelMonitor
from tailmatch.callbacks.reports.class_figures import pseudo_label_figure
from tailmatch.callbacks.reports.figures import to_array
from tailmatch.callbacks.reports.pseudo_label_monitor import (
    ROWS,
    kl_divergence,
    pseudo_label_scalars,
)
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.networks import CifarResNet


def test_kl_by_hand() -> None:
    assert kl_divergence(torch.tensor([3.0, 1.0]), torch.tensor([5.0, 5.0])) == pytest.approx(
        0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    )
    assert kl_divergence(torch.tensor([2.0, 0.0]), torch.tensor([2.0, 0.0])) == 0
    assert kl_divergence(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0])) == math.inf


def observed() -> PseudoLabelMonitor:
    monitor = PseudoLabelMonitor()
    monitor._target_totals = torch.tensor([2.0, 2.0])
    monitor._truth = torch.tensor([0, 1, 1, 0])
    monitor._counts = torch.zeros(len(ROWS), 2, dtype=torch.float64)
    raw = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    refined = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]])
    monitor.observe(raw, refined, torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.arange(4))
    return monitor


def test_weights_count_as_parts_of_a_selection() -> None:
    monitor = observed()
    rows = torch.tensor([[0.9, 0.1], [0.2, 0.8]])  # the true classes are 0 and 1
    monitor.observe(rows, rows.flip(1), torch.tensor([0.5, 2.0]), torch.tensor([0, 1]))
    monitor.observe(rows, rows, torch.tensor([0.25, 0.5]), torch.tensor([0, 1]))
    counts = dict(zip(ROWS, monitor._counts, strict=True))
    assert counts["selected"].tolist() == [1 + 2.0 + 0.25, 2 + 0.5 + 0.5]
    assert counts["selected_correct"].tolist() == [1 + 0.25, 1 + 0.5]
    scalars = pseudo_label_scalars(counts, torch.tensor([2.0, 2.0]), ["ant", "bee"])
    assert scalars["pseudo/selected"] == 6.25 / 8
    assert scalars["pseudo/accuracy_selected"] == 2.75 / 6.25
    again = PseudoLabelMonitor()
    again.load_state_dict(monitor.state_dict())
    assert torch.equal(again._counts, monitor._counts)
    again.load_state_dict({"counts": torch.ones(len(ROWS), 2, dtype=torch.long)})  # of version 0.1
    assert again._counts.dtype == torch.float64


def test_an_epoch_by_hand() -> None:
    counts = dict(zip(ROWS, observed()._counts.double(), strict=True))
    assert {name: row.tolist() for name, row in counts.items()} == {
        "raw": [3, 1], "refined": [1, 3], "selected": [1, 2], "truth": [2, 2],
        "raw_correct": [2, 1], "refined_correct": [1, 2], "selected_correct": [1, 1],
    }  # fmt: skip
    scalars = pseudo_label_scalars(counts, torch.tensor([2.0, 2.0]), ["ant", "bee"])
    assert scalars["pseudo/selected"] == 0.75
    assert scalars["pseudo/accuracy_raw"] == scalars["pseudo/accuracy_refined"] == 0.75
    assert scalars["pseudo/accuracy_selected"] == pytest.approx(2 / 3)
    assert scalars["pseudo/accuracy_refined_class/ant"] == 0.5
    assert scalars["pseudo/kl_raw"] == pytest.approx(kl_divergence(counts["raw"], counts["truth"]))
    figure = pseudo_label_figure(counts, torch.tensor([2.0, 2.0]), [1, 9], ["ant", "bee"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["bee", "ant"]  # most labels on top
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.25, 0.75, 0.75, 0.25]
    assert len(figure.axes) == 2 and to_array(figure).std() > 0


def test_an_epoch_is_logged_and_begun_anew() -> None:
    monitor, logged = observed(), {}
    logger = SimpleNamespace(log_metrics=lambda scalars, step: logged.update(scalars))
    trainer: Any = SimpleNamespace(
        datamodule=SimpleNamespace(class_names=["ant", "bee"]), loggers=[logger], global_step=9, max_epochs=100,
        max_steps=-1, current_epoch=0, is_global_zero=False,
    )  # fmt: skip
    monitor.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert logged["pseudo/selected"] == 0.75
    assert not monitor._counts.any()


RISING, FALLING = [float(k) for k in range(1, 11)], [float(k) for k in range(10, 0, -1)]
LABELED = [4, 5, 6, 4, 5, 6, 4, 5, 6, 4]


class Halved(Callback):
    """A user's own refiner, without a target."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        pl_module.add_refiner(self)

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        return (probs + probs.flip(1)) / 2


class Moving(Halved):
    """A user's own refiner, whose target changes."""

    target_totals = torch.tensor(RISING)


@pytest.mark.parametrize("monitor_first", [True, False])
@pytest.mark.parametrize(
    ("remedies", "given", "expected"),
    [
        ([], None, LABELED),
        ([partial(DARP, RISING, warmup_epochs=0)], None, RISING),
        ([partial(DistributionAlignment, RISING)], None, RISING),
        ([partial(DARP, RISING, warmup_epochs=0), partial(DistributionAlignment, FALLING)], None, RISING),
        ([partial(DistributionAlignment, FALLING), partial(DARP, RISING, warmup_epochs=0)], None, RISING),
        ([Halved], None, LABELED),
        ([partial(DistributionAlignment, FALLING), Halved], None, FALLING),
        ([partial(DARP, RISING, warmup_epochs=0), Moving], None, [1.0] * 10),
        ([partial(DARP, RISING, warmup_epochs=0)], FALLING, FALLING),
    ],
)
def test_the_target_is_that_of_the_last_refiner_that_has_one(
    remedies: list[Any], given: Any, expected: list[float], monitor_first: bool
) -> None:
    data = Digits(image_size=8, class_counts=ListedCounts(LABELED, [6] * 10))
    data.setup("fit")
    model = FixMatch(num_classes=10, network=partial(CifarResNet, depth=8))
    model.total_epochs = lambda: 5.0  # type: ignore[method-assign]
    logged: dict[str, float] = {}
    logger = SimpleNamespace(log_metrics=lambda scalars, step: logged.update(scalars))
    trainer: Any = SimpleNamespace(
        datamodule=data, loggers=[logger], global_step=9, global_rank=0, world_size=1, max_epochs=100, max_steps=-1,
        limit_train_batches=1.0, accumulate_grad_batches=1,
        current_epoch=0, is_global_zero=False,
    )  # fmt: skip
    monitor, made = PseudoLabelMonitor(given), [remedy() for remedy in remedies]
    for callback in [monitor, *made] if monitor_first else [*made, monitor]:
        callback.setup(trainer, model, "fit")
    for callback in made:
        if isinstance(callback, Moving):
            callback.target_totals = torch.ones(10)
    index = torch.arange(20)
    model.pseudo_labels(torch.randn(20, 10, generator=torch.Generator().manual_seed(0)).softmax(dim=1), index)
    counts = monitor._counts[ROWS.index("refined")].double()
    monitor.on_train_epoch_end(trainer, model)
    assert logged["pseudo/kl_refined"] == pytest.approx(kl_divergence(counts, torch.tensor(expected)), abs=1e-6)


def test_last_evaluations_by_hand() -> None:
    last = LastEvaluations(n=2)
    for value in (0.1, 0.5, 0.7):
        last._kept.append({"top1": value})
    restored = LastEvaluations(n=2)
    restored.load_state_dict(last.state_dict())
    summary = restored.summary()
    assert summary["evaluations"] == 2
    assert summary["metrics"]["top1"]["mean"] == pytest.approx(0.6)
    assert summary["metrics"]["top1"]["std"] == pytest.approx(0.1 * math.sqrt(2))
    with pytest.raises(ValueError, match="n is 0"):
        LastEvaluations(0)
