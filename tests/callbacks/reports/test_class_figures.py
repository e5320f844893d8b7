"""Figures of classes: sorted by labels, with names for up to 30 classes, and of more with the 30 worst."""

import torch
from matplotlib.axes import Axes

from tailmatch.callbacks.reports.class_figures import (
    class_counts_figure,
    confusion_figure,
    pseudo_label_figure,
    recall_figure,
)
from tailmatch.callbacks.reports.figures import to_array

NAMES, LABELS = ["ant", "bee", "cow"], [3, 9, 1]


def rows_of(axis: Axes) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def widths(axis: Axes) -> list[float]:
    return [bar.get_width() for bar in axis.patches]  # type: ignore[attr-defined]


def test_few_classes_have_names_and_are_sorted_by_labels() -> None:
    confusion = confusion_figure(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), LABELS, NAMES)
    drawn = confusion.axes[0].images[0].get_array()
    assert drawn is not None and drawn.tolist() == [[1, 0, 0], [0.25, 0.75, 0], [0, 0, 0]]
    assert [text.get_text() for text in confusion.axes[0].texts] == ["100", "25", "75"]
    assert rows_of(confusion.axes[0]) == ["bee", "ant", "cow"]
    recall = recall_figure(torch.tensor([0.5, float("nan"), 1.0]), LABELS, NAMES)
    assert widths(recall.axes[0]) == [0, 0.5, 1] and rows_of(recall.axes[0]) == ["bee (9)", "ant (3)", "cow (1)"]
    counts = class_counts_figure({"labeled": LABELS, "test": [2, 0, 2]}, NAMES)
    assert [line.get_xdata().tolist() for line in counts.axes[0].lines][0] == [9, 3, 1]  # type: ignore[union-attr]
    assert all(line.get_linestyle() == "None" for line in counts.axes[0].lines), "classes are not joined"
    for figure in (confusion, recall, counts):
        image = to_array(figure)
        assert image.ndim == 3 and image.shape[2] == 3 and image.std() > 0


def test_many_classes_show_the_thirty_worst_with_names_and_keep_their_size() -> None:
    labels = list(range(1, 76))
    names = [f"{k} {'x' * 69}" for k in range(75)]
    recall = torch.linspace(1, 0.1, 75)
    left, right = recall_figure(recall, labels, names).axes
    assert torch.allclose(torch.tensor(widths(left)).float(), recall.flip(0))  # the most labels on top
    assert [text.get_text() for text in left.texts] == ["many", "medium", "few"]
    assert (
        rows_of(right)[0].startswith("74 xx") and rows_of(right)[0].endswith("... (75)") and len(rows_of(right)) == 30
    )
    assert max(map(len, rows_of(right))) < 40
    confusion = torch.eye(75) * 9
    confusion[2, 7] = 1
    matrix, pairs, _ = (figure := confusion_figure(confusion, labels, names)).axes
    assert widths(pairs) == [0.1] and rows_of(pairs)[0].startswith("2 xxx") and "... as 7 xx" in rows_of(pairs)[0]
    to_array(figure)
    assert matrix.get_window_extent().width > 500, "names do not shrink the matrix"
    counts = {name: torch.rand(75) for name in ("raw", "refined", "truth", "raw_correct", "refined_correct")}
    assert len(rows_of(pseudo_label_figure(counts, torch.ones(75), labels, names).axes[0])) == 30
