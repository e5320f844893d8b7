"""Callbacks that several configurations add."""

from typing import Any

from jsonargparse import Namespace

from tailmatch.command_line.callback_list import joined


def entry(name: str, **init_args: Any) -> Namespace:
    return Namespace(class_path=f"tailmatch.callbacks.{name}", init_args=Namespace(**init_args))


def test_a_monitor_that_two_configurations_add_is_there_once() -> None:
    monitor, other = entry("PseudoLabelMonitor"), entry("EarlyLearningCurves")
    assert joined([monitor, other, entry("PseudoLabelMonitor")]) == [monitor, other]


def test_the_joined_callback_keeps_what_was_set_and_takes_what_is_set_later() -> None:
    [alone] = joined([entry("LastEvaluations", n=5), entry("LastEvaluations", n=20)])
    assert alone.init_args.n == 5  # 20 is the default
    [alone] = joined([entry("LastEvaluations", n=5), entry("LastEvaluations", n=7)])
    assert alone.init_args.n == 7


def test_callbacks_that_may_be_there_several_times_stay() -> None:
    writers = [entry("PredictionWriter", output="a.csv"), entry("PredictionWriter", output="b.csv")]
    assert joined(writers) == writers
    assert joined([*writers, writers[0].clone()]) == writers
