"""The printed results of a test: units, what the groups are, and the worst classes."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table

from tailmatch.callbacks.reports.evaluation_table import (
    EvaluationTable,
    group_sizes,
    metrics_table,
    worst_classes_table,
)
from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.metrics import METRICS, Evaluation, LongTailMetrics

NAMES = ["[unknown]", "모자", "a [/sale]", "d", "e", "f", "g"]
COUNTS = torch.tensor([500, 120, 60, 20, 10, 5, 0])


def evaluated() -> Evaluation:
    """Two images of each class but the last; class 2 is half right, class 4 is always taken for class 1."""
    target = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    predicted = torch.tensor([0, 0, 1, 1, 2, 0, 3, 3, 1, 1, 5, 5])
    metrics = LongTailMetrics(7)
    metrics.update(torch.eye(7)[predicted], target)
    return metrics.compute(COUNTS)


def rows(table: Table) -> list[list[str]]:
    """The cells of a table as they are printed."""
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table)
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()][4:-1]


def test_metrics_have_units_and_say_what_they_are() -> None:
    result = evaluated()
    scalars = {name: float(value) for name, value in result.scalars.items()}
    shown = rows(metrics_table({**scalars, "mine": 12.3456}, group_sizes(COUNTS, result.support), "test"))
    assert [row[0] for row in shown] == [*METRICS, "mine"]
    cells = {name: (value, meaning) for name, value, meaning in shown}
    assert cells["top1"] == ("75.00 %", "images whose class is the most likely one")
    assert cells["balanced_accuracy"][0] == "75.00 %" and cells["loss"][0].endswith(" nats")
    assert cells["few"] == ("100.00 %", "mean recall, rarest third: 1 class")  # f; g has no images
    assert cells["few_shot"] == ("50.00 %", "mean recall, under 20 labels: 2 classes")
    assert cells["many_shot"] == ("100.00 %", "mean recall, over 100 labels: 2 classes")
    assert cells["mine"] == ("12.35", "")
    unlabeled = rows(metrics_table(scalars, group_sizes(torch.zeros(7), result.support), "test"))
    assert [row[0] for row in unlabeled] == list(METRICS[:7])


def test_the_worst_classes_are_named_with_what_they_are_taken_for() -> None:
    shown = rows(worst_classes_table(evaluated(), COUNTS, NAMES))
    assert shown == [
        ["e", "0.00 %", "2", "10", "모자 (100.00 %)"],
        ["a [/sale]", "50.00 %", "2", "60", "[unknown] (50.00 %)"],
        ["[unknown]", "100.00 %", "2", "500", ""],
        ["모자", "100.00 %", "2", "120", ""],
        ["d", "100.00 %", "2", "20", ""],
    ]


@pytest.mark.parametrize(("stage", "fn"), [("test", "test"), ("val", "validate"), ("val", "fit")])
def test_it_is_printed_after_a_test_and_a_validation_alone(
    stage: str, fn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Supervised(7)
    model.class_names, model.evaluations[stage] = NAMES, evaluated()
    logged = {f"{stage}/{name}": torch.tensor(0.5) for name in ("top1", "of my own")}
    trainer: Any = SimpleNamespace(is_global_zero=True, callback_metrics=logged, state=SimpleNamespace(fn=fn))
    (EvaluationTable().on_test_end if stage == "test" else EvaluationTable().on_validation_end)(trainer, model)
    out = capsys.readouterr().out
    if fn == "fit":
        assert not out
    else:
        assert f"12 {'test' if stage == 'test' else 'validation'} images" in out
        assert "75.00 %" in out and "of my own" in out and "lowest recall, 5 of 6 classes" in out
