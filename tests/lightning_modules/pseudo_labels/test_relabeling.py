"""Relabeling by hand: which labels give way, and what then teaches."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules.pseudo_labels.relabeling import (
    check_labeled_predictions,
    confident_disagreements,
    relabel,
)

GIVEN = torch.tensor([0, 1, 2, 0, 1, 0])
PROBS = torch.tensor(
    [[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.55, 0.25, 0.2], [0.0, 0.05, 0.95], [0.7, 0.2, 0.1], [0.1, 0.9, 0.0]]
)
PREDICTIONS = PseudoLabels(torch.tensor([1, 1, 0, 2, 0, -1]), PROBS.amax(dim=1), PROBS)


def test_only_confident_disagreements_give_way() -> None:
    # 1 agrees, 2 is unsure, 5 has no prediction; 0.7 and 0.9 (as float32) reach their own threshold.
    confidence = PREDICTIONS.confidence
    assert confident_disagreements(GIVEN, PREDICTIONS.label, confidence, 0.7).tolist() == [1, 0, 0, 1, 1, 0]
    assert confident_disagreements(GIVEN, PREDICTIONS.label, confidence, 0.91).tolist() == [0, 0, 0, 1, 0, 0]
    assert confident_disagreements(GIVEN, PREDICTIONS.label, confidence, 0.0).tolist() == [1, 0, 1, 1, 1, 0]


def test_what_teaches_then() -> None:
    changed = relabel(GIVEN, PREDICTIONS, 0.6)
    assert changed.label.tolist() == [1, 1, 2, 2, 0, 0] and torch.equal(changed.target(soft=False), changed.label)
    expected = torch.eye(3)[GIVEN]
    expected[[0, 3, 4]] = PROBS[[0, 3, 4]]
    assert torch.equal(changed.target(soft=True), expected)
    with pytest.raises(
        ValueError, match="relabel_threshold is 0.6, and there are no predictions of the labeled images"
    ):
        relabel(GIVEN, None, 0.6)


@pytest.mark.parametrize(
    ("threshold", "predictions", "together", "message"),
    [
        (0.9, None, False, r"relabel_threshold is 0.9, and pseudo_labels f.npz has no labeled images: .* pool"),
        (None, PREDICTIONS, False, "f.npz has images that are labeled here, and they would not be used: set relabel"),
        (None, PREDICTIONS, True, None),
        (None, None, False, None),
        (0.9, PREDICTIONS, False, None),
    ],
)
def test_a_file_fits_what_is_done_with_it(threshold: Any, predictions: Any, together: bool, message: Any) -> None:
    data: Any = SimpleNamespace(
        labeled_predictions=predictions, pseudo_label_file="f.npz", include_labeled_in_unlabeled=together
    )
    if message is None:
        check_labeled_predictions(data, threshold)
        return
    with pytest.raises(ValueError, match=message):
        check_labeled_predictions(data, threshold)
