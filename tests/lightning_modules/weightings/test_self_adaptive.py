"""FreeMatch's thresholds and their updates by hand."""

import pytest
import torch

from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.weightings import SelfAdaptiveThresholds, Weighting
from tests.lightning_modules.pixel_network import PixelNetwork

ROWS = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])


def asked(weighting: Weighting, *rows: list[float]) -> list[float]:
    step = torch.tensor(rows)
    weights: list[float] = weighting(step, step, torch.arange(len(step)), None).tolist()
    return weights


def thresholds(**kwargs: object) -> SelfAdaptiveThresholds:
    made = SelfAdaptiveThresholds(0.9, **kwargs)  # type: ignore[arg-type]
    made.prepare(3, 0.95)
    return made


def test_the_state_is_updated_before_it_is_used() -> None:
    weighting = thresholds()
    assert asked(weighting, *ROWS.tolist()) == [1, 1]
    assert weighting.level.item() == pytest.approx(0.375)
    torch.testing.assert_close(weighting.prior.probs, torch.tensor([0.34, 0.35, 0.31]))
    torch.testing.assert_close(weighting.histogram.probs, torch.tensor([0.35, 0.35, 0.3]))
    torch.testing.assert_close(weighting.thresholds(), torch.tensor([0.36429, 0.375, 0.33214]), atol=1e-5, rtol=0)


def test_each_class_has_its_threshold() -> None:
    weighting = SelfAdaptiveThresholds(0.0)  # thresholds of the step alone: t = .45, p = (.425, .35, .225)
    weighting.prepare(3, 0.95)
    assert asked(weighting, [0.5, 0.25, 0.25], [0.35, 0.45, 0.2]) == [1, 1]  # t = .475: (.475, .391, .251)
    assert asked(weighting, [0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.3, 0.4, 0.3]) == [1, 0, 1]  # t = .567; .567, .283


def test_a_quantile_in_place_of_the_mean_and_limits() -> None:
    weighting = thresholds(quantile=0.8)
    asked(weighting, *ROWS.tolist())
    assert weighting.level.item() == pytest.approx(0.9 / 3 + 0.1 * 0.78)
    torch.testing.assert_close(thresholds(clip=[0.2, 0.3]).thresholds(), torch.tensor([0.3, 0.3, 0.3]))  # from 1/3 each


def test_settings_without_a_use_are_refused() -> None:
    with pytest.raises(ValueError, match="threshold is 0.8, and SelfAdaptiveThresholds uses none"):
        FixMatch(3, network=PixelNetwork, threshold=0.8, weighting=SelfAdaptiveThresholds())
    with pytest.raises(ValueError, match=r"clip is \[0.9, 0.5\]; the first must not be above"):
        SelfAdaptiveThresholds(clip=[0.9, 0.5])
