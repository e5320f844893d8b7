"""Means over steps."""

import torch

from tailmatch.lightning_modules.training.running_means import RunningMeans


def test_means_are_taken_once() -> None:
    means = RunningMeans()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(10)})
    means.add({"a": torch.tensor(2.0), "b": torch.tensor(20)})
    assert means.take() == {"a": torch.tensor(1.5), "b": torch.tensor(15.0)}
    assert means.take() == {}


def test_what_is_not_finite_is_named() -> None:
    means = RunningMeans()
    assert means.not_finite() == []
    means.add({"good": torch.tensor(1.0), "bad": torch.tensor(float("nan"))})
    means.add({"good": torch.tensor(1.0), "bad": torch.tensor(1.0)})
    assert means.not_finite() == ["bad"]
