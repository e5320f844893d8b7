"""Similarities to labeled images, their sums by class and their corrections, by hand."""

import math

import pytest
import torch

from tailmatch.lightning_modules.pseudo_labels.neighbors import (
    OUT_OF_REACH,
    Neighbors,
    class_shares,
    corrected_similarities,
)

LOGITS = torch.tensor([[math.log(4), math.log(3), math.log(2), math.log(1), OUT_OF_REACH]])  # .4, .3, .2, .1 and none
CLASSES = torch.tensor([0, 1, 0, 2, -1])


def test_similarities_are_summed_by_class() -> None:
    assert class_shares(LOGITS, CLASSES, 3)[0].tolist() == pytest.approx([0.6, 0.3, 0.1])


def test_similarities_are_corrected_by_the_prediction() -> None:
    probs = torch.tensor([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0]])
    found = corrected_similarities(LOGITS.expand(2, -1), probs, CLASSES)
    # .4 * .5, .3 * .2, .2 * .5, .1 * .3 are .2, .06, .1, .03 of .39
    assert found[0].tolist() == pytest.approx([0.2 / 0.39, 0.06 / 0.39, 0.1 / 0.39, 0.03 / 0.39, 0])
    assert found[1].tolist() == pytest.approx([0, 1, 0, 0, 0])


def test_a_prediction_that_fits_no_labeled_image_leaves_finite_similarities() -> None:
    found = corrected_similarities(torch.full((1, 2), OUT_OF_REACH), torch.tensor([[0.0, 1.0]]), torch.tensor([-1, -1]))
    assert found.sum().item() == pytest.approx(1)


def test_similarities_are_those_to_the_newest_embedding_of_each_image() -> None:
    neighbors = Neighbors(2, smoothing=0.9, temperature=0.5)
    neighbors.adapt(4)
    neighbors.write(torch.tensor([2, 0, 2]), torch.tensor([[1.0, 0], [0, 1], [3, 4]]), torch.tensor([5, 1, 5]))
    assert neighbors.similarities(torch.tensor([[1.0, 2.0]])).tolist() == [[4, OUT_OF_REACH, 22, OUT_OF_REACH]]
    assert neighbors.memory.labels.tolist() == [1, -1, 5, -1, -1]
