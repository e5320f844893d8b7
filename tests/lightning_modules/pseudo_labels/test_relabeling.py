"""Relabeling by hand: which labels give way, what then teaches, and what the report says of it."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tailmatch.datamodules.images import ImageRows, Images
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules.pseudo_labels.relabeling import (
    check_labeled_predictions,
    confident_disagreements,
    relabel,
)
from tailmatch.lightning_modules.pseudo_labels.self_training_report import (
    relabeling_line,
    relabeling_scalars,
    write_relabeled,
)

NAMES = ["ant", "bee", "cow"]
GIVEN = torch.tensor([0, 1, 2, 0, 1, 0])
PROBS = torch.tensor(
    [[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.55, 0.25, 0.2], [0.0, 0.05, 0.95], [0.7, 0.2, 0.1], [0.1, 0.9, 0.0]]
)
PREDICTIONS = PseudoLabels(torch.tensor([1, 1, 0, 2, 0, -1]), PROBS.amax(dim=1), PROBS)
TRUTH = torch.tensor([1, 1, 2, 0, 2, 0])


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


def rows(keys: bool = True, noisy: bool = True) -> ImageRows:
    """Rows 2 to 7 of a pool of eight."""
    names = tuple(f"train/{name}.jpg" for name in "abcdefgh") if keys else None
    truth = torch.cat([torch.zeros(2, dtype=torch.long), TRUTH if noisy else GIVEN])
    images = Images(torch.zeros(8, 3, 1, 1, dtype=torch.uint8), truth, names)
    return ImageRows(images, torch.arange(2, 8), given=GIVEN if noisy else None)


def test_the_report_lists_replaced_labels_the_most_confident_first(tmp_path: Path) -> None:
    path = tmp_path / "run" / "relabeled.csv"
    for _ in range(2):  # a later labeling renews it
        write_relabeled(path, relabel(GIVEN, PREDICTIONS, 0.6), rows(), NAMES)
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["index", "key", "given", "predicted", "confidence", "true"],
            ["3", "train/f.jpg", "ant", "cow", "0.950000", "ant"],
            ["0", "train/c.jpg", "ant", "bee", "0.900000", "bee"],
            ["4", "train/g.jpg", "bee", "ant", "0.700000", "cow"],
        ]
    write_relabeled(path, relabel(GIVEN, PREDICTIONS, 0.91), rows(keys=False, noisy=False), NAMES)
    assert path.read_text().splitlines() == ["index,key,given,predicted,confidence", "3,5,ant,cow,0.950000"]
    assert [file.name for file in path.parent.iterdir()] == ["relabeled.csv"]


def test_the_line_and_the_scalars() -> None:
    changed = relabel(GIVEN, PREDICTIONS, 0.6)
    line = "relabeled: 3 of 6 labeled images (ant -> bee 1, ant -> cow 1, bee -> ant 1)"
    assert relabeling_line(changed, None, NAMES) == line
    # Given labels 1, 2, 3 and 5 are right; of the replaced ones that of image 0 alone, and that of 3 was right before.
    right = ", 1 of them rightly: 66.7% of all labels were right, now 66.7%"
    assert relabeling_line(changed, TRUTH, NAMES) == line + right
    assert relabeling_scalars(changed, None) == {"relabel/share": 0.5}
    assert relabeling_scalars(changed, TRUTH) == pytest.approx(
        {
            "relabel/share": 0.5,
            "relabel/right": 1 / 3,
            "relabel/labels_right_before": 4 / 6,
            "relabel/labels_right": 4 / 6,
        }
    )
    nothing = relabel(GIVEN, PREDICTIONS, 0.99)
    assert relabeling_line(nothing, TRUTH, NAMES) == "relabeled: 0 of 6 labeled images"
    assert "relabel/right" not in relabeling_scalars(nothing, TRUTH)


def test_the_line_names_the_most_frequent_pairs() -> None:
    given = torch.tensor([0] * 3 + [1] * 4 + [2] * 5 + [3, 3, 4, 5])
    predicted = torch.tensor([1] * 3 + [2] * 4 + [3] * 5 + [4, 4, 5, 0])
    changed = relabel(given, PseudoLabels(predicted, torch.ones(16)), 0.5)
    named = "2 -> 3 5, 1 -> 2 4, 0 -> 1 3, 3 -> 4 2, 4 -> 5 1, ..."
    assert relabeling_line(changed, None, list("012345")) == f"relabeled: 16 of 16 labeled images ({named})"


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
