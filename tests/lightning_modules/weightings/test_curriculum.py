"""FlexMatch's thresholds by hand, and the order of its updates."""

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules import ACR, DyTrim, FixMatch
from tailmatch.lightning_modules.weightings import CurriculumThresholds, GaussianWeights
from tailmatch.lightning_modules.weightings.curriculum import curriculum_thresholds
from tests.lightning_modules.pixel_network import PixelNetwork, image

COUNTS = torch.tensor([4, 3, 1, 0])  # 4 images without a confident label


def test_thresholds_with_and_without_warm_up() -> None:
    torch.testing.assert_close(curriculum_thresholds(COUNTS, 0.95), torch.tensor([0.57, 0.135714, 0.0]))
    torch.testing.assert_close(curriculum_thresholds(COUNTS, 0.95, warmup=False), torch.tensor([0.95, 0.19, 0.0]))
    assert curriculum_thresholds(torch.tensor([8, 0, 0]), 0.95, warmup=False).tolist() == [0, 0]


def rows(*confidences: float) -> Tensor:
    """Rows of class 0."""
    return torch.tensor([[p, 0, 0] for p in confidences])


def test_thresholds_are_those_before_the_step_and_labels_need_the_fixed_one() -> None:
    weighting = CurriculumThresholds()
    weighting.prepare(3, 0.95)
    weighting.adapt(3, torch.ones(3))
    index, step = torch.tensor([2, 0]), rows(0.96, 0.6)
    assert weighting(step, step, index, None).tolist() == [1, 1]  # all thresholds are 0
    assert weighting.memory.labels.tolist() == [-1, -1, 0, -1]  # 0.6 was enough for the class, not for a label
    assert weighting(step, rows(0.3167, 0.3166), index, None).tolist() == [1, 0]  # beta 1/2: .95 / 3
    other = torch.tensor([[0.0, 0.05, 0.95]])
    assert weighting(other, other, torch.tensor([2]), None).tolist() == [1]  # replaces the label
    assert weighting.memory.labels.tolist() == [-1, -1, 2, -1]


def test_fixmatch_has_the_weights_of_its_weighting_and_refuses_one_that_it_would_not_ask() -> None:
    method = FixMatch(3, network=PixelNetwork, threshold=0.8, weighting=CurriculumThresholds(warmup=False))
    method.weighting.adapt(2, torch.ones(3))  # type: ignore[union-attr]
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    batch = {
        "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([0])},
        "unlabeled": {
            "weak": torch.cat([image(0, 5, 0), image(0, 1, 0)]),
            "strong": [torch.cat([image(0, 1, 0), image(2, 0, 0)])],
            "index": torch.tensor([0, 1]),
        },
    }
    selected = []
    for _ in range(2):
        method.training_step(batch, 0)
        selected.append(logged["selected"].item())
    assert selected == [1, 0.5]  # at first the threshold of class 1 is 0, then 0.8
    assert "weighting.memory.labels" in method.state_dict()
    with pytest.raises(ValueError, match="threshold is 0.0; it must be above 0"):  # or it would select all
        DyTrim(3, network=PixelNetwork, weighting=CurriculumThresholds())
    DyTrim(3, network=PixelNetwork, weighting=GaussianWeights())  # has no threshold, as DyTrim
    with pytest.raises(ValueError, match="ACR has weights of its own: leave weighting out"):
        ACR(3, network=PixelNetwork, weighting=CurriculumThresholds())
