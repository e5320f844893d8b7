"""AdaMatch's parts by hand, and its loss on a network whose logits are the pixels."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.lightning_modules import AdaMatch, SimPro
from tailmatch.lightning_modules.methods import adamatch
from tailmatch.lightning_modules.methods.adamatch import interpolated, ramp
from tailmatch.lightning_modules.weightings import RelativeThreshold
from tests.lightning_modules.pixel_network import PixelNetwork, image


def test_the_unlabeled_loss_rises_in_the_first_half() -> None:
    assert [ramp(t) for t in (0, 0.125, 0.25, 0.5, 0.7, 1)] == pytest.approx([0, 0.1464466, 0.5, 1, 1, 1])


def test_the_threshold_is_relative_to_the_confidence_in_labeled_images() -> None:
    weighting = RelativeThreshold()
    weighting.prepare(3, 0.9)
    labeled = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7]])  # 0.9 * 0.8
    refined = torch.tensor([[0.721, 0.2, 0.079], [0.719, 0.2, 0.081]])
    assert weighting(refined, refined, torch.arange(2), labeled).tolist() == [1, 0]
    with pytest.raises(ValueError, match="without the predictions on the labeled images"):
        weighting(refined, refined, torch.arange(2), None)


def test_each_logit_is_between_those_of_both_passes() -> None:
    together, alone = torch.zeros(100, 3), torch.tensor([1.0, 2.0, 4.0]).expand(100, 3)
    share = interpolated(together, alone) / alone
    assert share.min() >= 0 and share.max() <= 1
    assert share.std(dim=0).min() > 0.2 and share.std(dim=1).mean() > 0.2  # 0.29 for U(0, 1), in rows too


def test_alignment_includes_the_step() -> None:
    method = AdaMatch(3, network=PixelNetwork, momentum=0.5, batches=2)
    probs, labeled = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.8, 0.1, 0.1]])
    found = method.aligned(probs, labeled)
    target, mean = (torch.full((3,), 1 / 3) + labeled[0]) / 2, (torch.full((3,), 1 / 3) + probs[0]) / 2
    torch.testing.assert_close(method.labeled_prior.probs, target)
    expected = probs * target / mean
    torch.testing.assert_close(found, expected / expected.sum(), rtol=1e-5, atol=1e-5)


class Shifted(PixelNetwork):
    """Adds the number of its images to the first logit, as BatchNorm makes logits depend on the others of a pass."""

    def _features(self, normalized: Tensor) -> Tensor:
        first = torch.tensor([1.0, 0.0, 0.0])
        return super()._features(normalized) + len(normalized) * first


def test_the_loss_of_a_step() -> None:
    method = AdaMatch(3, network=Shifted, momentum=0.0, batches=1, threshold=0.95)
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    strong = torch.cat([image(0, 1, 0), image(2, 0, 0)])
    batch = {
        "labeled": {"weak": image(1, 0, 0), "strong": image(0, 1, 0), "target": torch.tensor([0])},
        "unlabeled": {
            "weak": torch.cat([image(-6, 5, 0), image(-6, 0, 1)]),
            "strong": [strong],
            "index": torch.tensor([4, 2]),
        },
    }
    with (
        patch.object(adamatch, "progress", lambda trainer: 0.25),
        patch.object(AdaMatch, "trainer", None),
        patch.object(torch, "rand", lambda shape: torch.full(shape, 0.25)),
    ):
        loss = method.training_step(batch, 0)
    # 6 images pass together, 2 alone: a quarter of the way, 5 is added to the first logit of labeled images.
    labeled = torch.tensor([[6.0, 0, 0], [5.0, 1, 0]])
    target = torch.tensor([0, 0])
    probs = torch.tensor([[0.0, 5, 0], [0, 0, 1]]).softmax(dim=1)
    aligned = probs * labeled[0].softmax(dim=0) / probs.mean(dim=0)
    aligned = aligned / aligned.sum(dim=1, keepdim=True)
    weights = (aligned.amax(dim=1) >= 0.95 * labeled[0].softmax(dim=0).max()).float()
    losses = functional.cross_entropy(torch.tensor([[6.0, 1, 0], [8, 0, 0]]), aligned.argmax(dim=1), reduction="none")
    expected = functional.cross_entropy(labeled, target) + 0.5 * (weights * losses).mean()
    torch.testing.assert_close(loss, expected)
    assert logged["selected"] == weights.mean() == 0.5


def test_a_method_without_labeled_predictions_refuses_the_threshold() -> None:
    method = SimPro(3, network=PixelNetwork, weighting=RelativeThreshold())
    with pytest.raises(ValueError, match="use it with FixMatch or AdaMatch"):
        method.pseudo_labels(torch.full((2, 3), 1 / 3), torch.arange(2))
