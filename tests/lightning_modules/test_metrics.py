"""Metrics against scikit-learn and numbers worked by hand."""

import math

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, recall_score
from torch.nn import functional

from tailmatch.lightning_modules.metrics import LongTailMetrics, geometric_mean, shot_groups, third_groups


def evaluate(logits: torch.Tensor, target: torch.Tensor, batch_size: int = 7) -> LongTailMetrics:
    metrics = LongTailMetrics(logits.shape[1])
    for batch in zip(logits.split(batch_size), target.split(batch_size), strict=True):
        metrics.update(*batch)
    return metrics


def test_agrees_with_scikit_learn_over_batches() -> None:
    random = torch.Generator().manual_seed(0)
    target = torch.randint(6, (200,), generator=random)
    logits = torch.randn(200, 6, generator=random) + 1.5 * functional.one_hot(target, 6)
    result = evaluate(logits, target).compute([100] * 6)
    predicted = logits.argmax(1)
    expected = {
        "top1": (predicted == target).float().mean().item(),
        "top5": 1 - (logits.argmin(1) == target).float().mean().item(),  # of 6: all but the last
        "balanced_accuracy": balanced_accuracy_score(target, predicted),
        "gm_recall": math.prod(recall_score(target, predicted, average=None)) ** (1 / 6),
        "macro_f1": f1_score(target, predicted, average="macro"),
        "gm_f1": math.prod(f1_score(target, predicted, average=None)) ** (1 / 6),
        "loss": functional.cross_entropy(logits, target).item(),
    }
    assert {name: result.scalars[name].item() for name in expected} == pytest.approx(expected, abs=1e-6)
    assert result.confusion is not None
    assert result.confusion.tolist() == confusion_matrix(target, predicted).tolist()


def test_a_class_with_none_right_counts_with_the_floor() -> None:
    # Two classes, recalls 1 and 0; the floor is 1 / (100 * 2), so the mean is sqrt(1 / 200).
    assert geometric_mean(torch.tensor([1.0, 0.0]), 2).item() == pytest.approx(math.sqrt(1 / 200))
    # A small value above zero is no zero: it is not raised to the floor.
    assert geometric_mean(torch.tensor([1.0, 0.0001]), 2).item() == pytest.approx(0.01)


def test_classes_without_an_image_are_left_out() -> None:
    logits = torch.eye(3)[torch.tensor([0, 0, 1, 0])]
    result = evaluate(logits, torch.tensor([0, 0, 1, 1])).compute([30, 20, 10])
    assert result.scalars["balanced_accuracy"].item() == pytest.approx(0.75)
    assert result.recall.isnan().tolist() == [False, False, True]
    assert "few" not in result.scalars and "few_shot" not in result.scalars
    assert result.scalars["many"].item() == 1 and result.scalars["medium"].item() == 0.5


def test_groups_by_thirds_and_by_counts() -> None:
    counts = torch.tensor([5, 300, 100, 20, 19, 101, 50, 1, 60, 7])
    thirds = {name: mask.nonzero().flatten().tolist() for name, mask in third_groups(counts).items()}
    assert thirds == {"many": [1, 2, 5], "medium": [3, 4, 6, 8], "few": [0, 7, 9]}
    shots = {name: mask.nonzero().flatten().tolist() for name, mask in shot_groups(counts).items()}
    assert shots == {"many_shot": [1, 5], "medium_shot": [2, 3, 6, 8], "few_shot": [0, 4, 7, 9]}


def test_thirds_of_equal_counts_are_in_class_order() -> None:
    groups = third_groups(torch.tensor([9] * 10))
    assert [mask.nonzero().flatten().tolist() for mask in groups.values()] == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9]]


def test_many_classes_keep_no_confusion_matrix_and_few_classes_a_short_top5() -> None:
    many = LongTailMetrics(201)
    many.update(torch.randn(4, 201), torch.tensor([0, 1, 2, 200]))
    assert many.compute().confusion is None
    few = evaluate(torch.eye(2), torch.tensor([1, 1])).compute()
    assert few.scalars["top5"].item() == 1
