"""Metrics against scikit-learn on random predictions, also with classes that are missing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean
from sklearn.metrics import confusion_matrix, f1_score, recall_score
from torch import Tensor
from torch.nn import functional

from tailmatch.lightning_modules.metrics import LongTailMetrics, shot_groups, third_groups


@st.composite
def evaluations(draw: Callable[[Any], Any]) -> tuple[Tensor, Tensor, int]:
    """Draw logits without ties, targets that need not have every class, and a batch size."""
    classes, size = draw(st.integers(2, 9)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**40)))
    target = torch.randint(draw(st.integers(1, classes)), (size,), generator=generator)
    right = draw(st.floats(0, 4)) * functional.one_hot(target, classes)
    return torch.rand(size, classes, generator=generator) + right, target, draw(st.integers(1, 41))


@given(evaluations(), st.data())
def test_metrics_are_those_of_scikit_learn(evaluation: tuple[Tensor, Tensor, int], data: Any) -> None:
    logits, target, batch_size = evaluation
    classes = logits.shape[1]
    metrics = LongTailMetrics(classes)
    for part in zip(logits.split(batch_size), target.split(batch_size), strict=True):
        metrics.update(*part)
    counts = torch.tensor(data.draw(st.lists(st.integers(1, 200), min_size=classes, max_size=classes)))
    result = metrics.compute(counts)

    predicted, present = logits.argmax(1), sorted(set(target.tolist()))
    per_class: dict[str, Any] = {"labels": present, "average": None, "zero_division": 0}
    recall, f1 = recall_score(target, predicted, **per_class), f1_score(target, predicted, **per_class)
    floor = 1 / (100 * classes)
    expected = {
        "top1": (predicted == target).double().mean().item(),
        "top5": (logits >= logits.gather(1, target[:, None])).sum(1).le(5).double().mean().item(),
        "balanced_accuracy": recall.mean(),
        "macro_f1": f1.mean(),
        "gm_recall": gmean([value or floor for value in recall]),
        "gm_f1": gmean([value or floor for value in f1]),
        "loss": functional.cross_entropy(logits.double(), target).item(),
    }
    by_class = dict(zip(present, recall, strict=True))
    for name, group in {**third_groups(counts), **shot_groups(counts)}.items():
        inside = [by_class[k] for k in group.nonzero().flatten().tolist() if k in by_class]
        if inside:
            expected[name] = sum(inside) / len(inside)
    got = {name: value.item() for name, value in result.scalars.items()}
    assert got == pytest.approx(expected, abs=1e-5)
    assert result.confusion is not None
    assert result.confusion.tolist() == confusion_matrix(target, predicted, labels=range(classes)).tolist()


@given(st.lists(st.integers(0, 500), min_size=1, max_size=30).map(torch.tensor))
def test_every_class_is_in_one_group_of_each_kind(counts: Tensor) -> None:
    for groups in (third_groups(counts), shot_groups(counts)):
        assert torch.stack(list(groups.values())).sum(0).eq(1).all()
    thirds = third_groups(counts)
    many, few = counts[thirds["many"]], counts[thirds["few"]]
    assert len(many) == len(few) == len(counts) // 3
    if len(many):
        medium = counts[thirds["medium"]]
        assert many.min() >= medium.max() >= medium.min() >= few.max()
