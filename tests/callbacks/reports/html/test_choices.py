"""What a report shows, worked out by hand."""

import math

import pytest
import torch

from tailmatch.callbacks.reports.html.choices import (
    Confusion,
    calibration_error,
    label_next,
    reliability,
    wilson_lower,
    worst_confusions,
)


def test_calibration_by_hand() -> None:
    confidence = torch.tensor([0.1, 0.5, 0.5, 0.9, 1.0])
    bins = reliability(confidence, torch.tensor([False, True, False, True, True]), bins=2)
    assert [(each.images, each.accuracy) for each in bins] == [(3, pytest.approx(1 / 3)), (2, 1)]  # 0.5 is in the first
    assert calibration_error(bins) == pytest.approx((3 * abs(1 / 3 - 1.1 / 3) + 2 * 0.05) / 5)
    assert math.isnan(calibration_error(reliability(torch.empty(0), torch.empty(0))))


def test_classes_take_turns_by_margin_and_the_rarest_comes_first() -> None:
    predicted = torch.tensor([0, 0, 0, 2, 2, 1])
    margin = torch.tensor([0.3, 0.1, 0.2, 0.5, 0.4, 0.3])
    labels = torch.tensor([50, 3, 7])
    assert label_next(predicted, margin, labels, 9).tolist() == [5, 4, 1, 3, 2, 0]
    assert label_next(predicted, margin, labels, 2).tolist() == [5, 4]
    sure = torch.tensor([0.3, 0.1, 0.2, 0.9, 0.4, 0.7])  # 5 and 3 wait, although their classes are rare
    assert label_next(predicted, sure, labels, 9).tolist() == [4, 1, 2, 0, 5, 3]
    assert label_next(predicted[:0], margin[:0], labels, 2).tolist() == []


def test_every_beginning_of_the_list_is_balanced() -> None:
    torch.manual_seed(0)
    predicted = torch.tensor([0.8, 0.15, 0.05]).multinomial(600, replacement=True)
    chosen = label_next(predicted, torch.rand(600) / 2, torch.tensor([90, 9, 1]), 60)
    for number in range(1, 61):
        counts = torch.bincount(predicted[chosen[:number]], minlength=3)
        assert int(counts.max() - counts.min()) <= 1


def test_one_image_of_two_is_no_worse_confusion_than_twenty_of_forty() -> None:
    assert float(wilson_lower(torch.tensor([1]), torch.tensor([2]))) == pytest.approx(0.0945, abs=1e-4)
    target = torch.tensor([0] * 40 + [1] * 2 + [2] * 3)
    predicted = torch.tensor([0] * 20 + [1] * 20 + [1, 2] + [2] * 3)
    assert worst_confusions(target, predicted, 3, 9) == [Confusion(0, 1, 20, 40), Confusion(1, 2, 1, 2)]
    assert worst_confusions(target, target, 3, 9) == []
