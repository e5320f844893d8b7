"""Which pseudo-labels are selected, by hand."""

import pytest
import torch

from tailmatch.lightning_modules.pseudo_labels.selection import select

LABEL = torch.tensor([1, 0, 1, -1, 1, 0, 1])
CONFIDENCE = torch.tensor([0.5, 0.9, 0.7, 0.0, 0.7, 0.2, 0.8])


@pytest.mark.parametrize(
    ("threshold", "top_k", "expected"),
    [
        (0.0, None, [0, 1, 2, 4, 5, 6]),  # image 3 has no label
        (0.7, None, [1, 2, 4, 6]),  # the threshold itself is enough
        (0.0, 1, [1, 6]),
        (0.0, 2, [1, 2, 5, 6]),  # of images 2 and 4, equally confident, the first
        (0.0, 3, [1, 2, 4, 5, 6]),
        (0.0, 9, [0, 1, 2, 4, 5, 6]),
        (0.75, 2, [1, 6]),  # a class may give fewer
        (0.95, 2, []),
    ],
)
def test_threshold_and_top_k_of_each_class(threshold: float, top_k: int | None, expected: list[int]) -> None:
    threshold = float(torch.tensor(threshold))  # as float32 confidences have it
    assert select(LABEL, CONFIDENCE, threshold, top_k).nonzero().squeeze(1).tolist() == expected


def test_top_k_agrees_with_a_sort_of_each_class() -> None:
    random = torch.Generator().manual_seed(0)
    label = torch.randint(-1, 7, (500,), generator=random)
    confidence = torch.randint(0, 20, (500,), generator=random) / 20  # many ties
    selected = select(label, confidence, 0.3, 11)
    for k in range(7):
        rows = [i for i in range(500) if label[i] == k and confidence[i] >= 0.3]
        best = sorted(rows, key=lambda i: (-float(confidence[i]), i))[:11]
        assert selected.logical_and(label == k).nonzero().squeeze(1).tolist() == sorted(best)
    assert not selected[label < 0].any()
