"""UDA's limits and its loss by hand."""

import math
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.lightning_modules import UDA
from tailmatch.lightning_modules.bases.semi_supervised import sharpen
from tailmatch.lightning_modules.methods import uda
from tailmatch.lightning_modules.methods.uda import annealed
from tests.lightning_modules.pixel_network import PixelNetwork, image


@pytest.mark.parametrize(("schedule", "limit"), [("linear", 0.55), ("exp", 0.1739), ("log", 0.9261)])
def test_limits_half_way(schedule: str, limit: float) -> None:
    assert annealed(schedule, 0.5, 10) == pytest.approx(limit, abs=5e-5)
    assert annealed(schedule, 1.0, 10) == pytest.approx(1, abs=0.007)


def test_the_threshold_is_of_the_prediction_before_sharpening() -> None:
    method = UDA(3, network=PixelNetwork)
    probs = torch.tensor([[0.6, 0.3, 0.1], [0.81, 0.1, 0.09], [0.8, 0.1, 0.1]])
    target, weights = method.pseudo_labels(probs, torch.arange(3))
    torch.testing.assert_close(target[0], torch.tensor([0.8417, 0.1488, 0.0095]), atol=5e-5, rtol=0)
    assert weights.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"threshold is 1.0; it must be in \[0, 1\)"):
        UDA(3, network=PixelNetwork, threshold=1.0)


def step(annealing: str | None, share: float) -> float:
    method = UDA(3, network=PixelNetwork, annealing=annealing)  # type: ignore[arg-type]
    method.track = lambda **values: None  # type: ignore[method-assign]
    batch = {
        "labeled": {"weak": torch.cat([image(1, 0, 0), image(3, 0, 0)]), "target": torch.tensor([1, 0])},
        "unlabeled": {"weak": image(0, 5, 0), "strong": [image(0, 1, 0)], "index": torch.tensor([0])},
    }
    with patch.object(uda, "progress", lambda trainer: share), patch.object(UDA, "trainer", None):
        return method.training_step(batch, 0).item()


def test_labeled_images_that_are_likely_wait() -> None:
    likely, unlikely = -math.log(math.exp(3) / (math.exp(3) + 2)), -math.log(1 / (math.e + 2))  # p of .909 and .212
    weak: Tensor = torch.tensor([[0.0, 5.0, 0.0]]).softmax(dim=1)
    unlabeled = functional.cross_entropy(torch.tensor([[0.0, 1.0, 0.0]]), sharpen(weak, 0.4)).item()
    assert step(None, 0) == pytest.approx((likely + unlikely) / 2 + unlabeled, rel=1e-5)
    assert step("linear", 0.8) == pytest.approx(unlikely + unlabeled, rel=1e-5)  # up to .867
    assert step("linear", 0.9) == pytest.approx((likely + unlikely) / 2 + unlabeled, rel=1e-5)  # up to .933


def test_a_step_whose_labeled_images_all_wait_learns_from_the_others() -> None:
    method = UDA(3, network=PixelNetwork, annealing="exp")
    with patch.object(uda, "progress", lambda trainer: 0.0), patch.object(UDA, "trainer", None):
        loss = method.labeled_loss(torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([0]))
    assert loss.item() == 0


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ValueError, match="annealing is 'square'"):
        UDA(3, network=PixelNetwork, annealing="square")  # type: ignore[arg-type]
