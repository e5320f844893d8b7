"""One warning where all images are predicted as one class."""

import warnings

import pytest
import torch

from tailmatch.lightning_modules.metrics import Evaluation, LongTailMetrics
from tailmatch.lightning_modules.training.single_class import SingleClassWarning

NAMES = ["cat", "dog", "owl"]


def evaluated(predicted: list[int], target: list[int]) -> Evaluation:
    metrics = LongTailMetrics(3)
    metrics.update(torch.eye(3)[predicted], torch.tensor(target))
    return metrics.compute()


ONE = evaluated([1, 1, 1, 1], [0, 1, 2, 2])
TWO = evaluated([1, 1, 1, 0], [0, 1, 2, 2])
RIGHT = evaluated([1, 1], [1, 1])  # images of one class say nothing


def test_a_test_warns_at_once_and_a_fit_at_the_second_validation_in_a_row() -> None:
    with pytest.warns(UserWarning, match="all 4 test images are predicted as 'dog': the network does not tell"):
        SingleClassWarning().look_at(ONE, NAMES, "test images", in_fit=False)
    watch = SingleClassWarning()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for result in (ONE, TWO, RIGHT, ONE):
            watch.look_at(result, NAMES, "validation images", in_fit=True)
    with pytest.warns(UserWarning, match="all 4 validation images are predicted as 'dog', for the 2nd time in a row"):
        watch.look_at(ONE, NAMES, "validation images", in_fit=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.look_at(ONE, NAMES, "validation images", in_fit=True)  # it was said
