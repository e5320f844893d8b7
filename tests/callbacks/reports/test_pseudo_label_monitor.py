"""Pseudo-label statistics by hand."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tailmatch.callbacks import LastEvaluations, PseudoLabelMonitor
from tailmatch.callbacks.reports.figures import to_array
from tailmatch.callbacks.reports.pseudo_label_monitor import (
    ROWS,
    kl_divergence,
    pseudo_label_figure,
    pseudo_label_scalars,
)


def test_kl_by_hand() -> None:
    assert kl_divergence(torch.tensor([3.0, 1.0]), torch.tensor([5.0, 5.0])) == pytest.approx(
        0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    )
    assert kl_divergence(torch.tensor([2.0, 0.0]), torch.tensor([2.0, 0.0])) == 0
    assert kl_divergence(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0])) == math.inf


def observed() -> PseudoLabelMonitor:
    monitor = PseudoLabelMonitor()
    monitor.totals = torch.tensor([2.0, 2.0])
    monitor._truth = torch.tensor([0, 1, 1, 0])
    monitor._counts = torch.zeros(len(ROWS), 2, dtype=torch.long)
    raw = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    refined = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]])
    monitor.observe(raw, refined, torch.tensor([True, False, True, True]), torch.arange(4))
    return monitor


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
    figure = pseudo_label_figure(counts, torch.tensor([2.0, 2.0]), ["ant", "bee"])
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.75, 0.25, 0.25, 0.75]
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
