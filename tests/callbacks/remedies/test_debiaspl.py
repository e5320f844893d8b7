"""DebiasPL's two halves by hand, their order in a step, and what it is refused beside."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor

from tailmatch.callbacks import CDMAD, DebiasPL, DistributionAlignment
from tailmatch.callbacks.remedies.debiaspl import debias
from tailmatch.lightning_modules import FixMatch, ReMixMatch, SimPro, Supervised
from tailmatch.lightning_modules.pseudo_labels.running_prior import RunningPrior, log_shift
from tests.contract import run
from tests.lightning_modules.pixel_network import PixelNetwork, image

PRIOR = torch.tensor([0.6, 0.3, 0.1])


def close(found: Tensor, *expected: float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


def test_the_published_numbers() -> None:
    probs = torch.tensor([[2.0, 1.8, 1.5]]).softmax(dim=1)
    close(probs[0], 0.4123, 0.3376, 0.2501)
    close(debias(probs, PRIOR, 0.5)[0], 0.2745, 0.3178, 0.4078)
    close(log_shift(PRIOR, 0.5), -0.2554, -0.6020, -1.1513)
    close(debias(probs, PRIOR, 0.0)[0], 0.4123, 0.3376, 0.2501)


def test_a_class_that_is_never_predicted_stays_finite() -> None:
    never = torch.tensor([1.0, 0.0])
    close(debias(torch.tensor([[1.0, 0.0]]), never, 1.0)[0], 1.0, 0.0)
    remedy = DebiasPL(1.0)
    remedy._prior = RunningPrior(2)
    remedy._prior.probs.copy_(never)
    assert remedy.unlabeled_shift().isfinite().all()


def of_classes(order: list[int], momentum: float = 0.9) -> DebiasPL:
    remedy = DebiasPL(0.5, momentum)
    remedy._prior = RunningPrior(3, momentum)
    remedy._prior.probs.copy_(PRIOR[order])
    return remedy


def step(remedy: DebiasPL) -> dict[str, Tensor]:
    method = FixMatch(num_classes=3, network=PixelNetwork, threshold=0.4)
    method.add_refiner(remedy, before_sharpening=True)
    method.add_shift(remedy)
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    batch = {
        "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([0])},
        "unlabeled": {"weak": image(2, 1.8, 1.5), "strong": [image(0, 1, 0)], "index": torch.tensor([0])},
    }
    method.training_step(batch, 0)
    assert not method.balanced_evaluation
    return logged


def test_the_old_mean_makes_the_pseudo_label_and_the_new_one_its_loss() -> None:
    remedy = of_classes([0, 1, 2])
    logged = step(remedy)
    # The pseudo-label is class 2 with 0.4078; that of 0.4123 for class 0 would be without debiasing.
    assert logged["confidence"].item() == pytest.approx(0.4078, abs=1e-4) and logged["selected"].item() == 1
    new = [0.9 * p + 0.1 * q for p, q in zip((0.6, 0.3, 0.1), (0.4123, 0.3376, 0.2501), strict=True)]
    logits = [z + math.log(p) / 2 for z, p in zip((0.0, 1.0, 0.0), new, strict=True)]
    expected = math.log(sum(math.exp(z) for z in logits)) - logits[2]
    assert logged["loss_unlabeled"].item() == pytest.approx(expected, abs=1e-4)
    assert logged["loss_labeled"].item() == pytest.approx(-math.log(math.e / (math.e + 2)), rel=1e-5)  # unshifted


def test_state() -> None:
    first, second = of_classes([0, 1, 2]), DebiasPL(0.5, 0.9)
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    first.refine(rows, torch.arange(4))
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        assert torch.equal(first.refine(rows, torch.arange(4)), second.refine(rows, torch.arange(4)))
        assert torch.equal(first.unlabeled_shift(), second.unlabeled_shift())


@pytest.mark.parametrize(
    ("method", "others", "message"),
    [
        (Supervised, [], "DebiasPL debiases pseudo-labels, and Supervised has none"),
        (SimPro, [], "DebiasPL corrects for the class prior, and so does SimPro itself: leave DebiasPL out"),
        (FixMatch, [DistributionAlignment()], "DebiasPL and DistributionAlignment both correct for the class prior"),
        (FixMatch, [CDMAD(warmup_epochs=0)], "DebiasPL and CDMAD both correct for the class prior"),
    ],
)
def test_what_it_does_not_go_with(method: Any, others: list[Callback], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(method, tmp_path, *others, DebiasPL())


def test_remixmatch_needs_its_alignment_off(tmp_path: Path) -> None:
    class Aligned(ReMixMatch):
        def __init__(self, num_classes: int, **kwargs: Any) -> None:
            super().__init__(num_classes, **{**kwargs, "align": True})

    with pytest.raises(ValueError, match=r"leave one of them out \(where the method brings it: align: false\)"):
        run(Aligned, tmp_path, DebiasPL())


@pytest.mark.parametrize(("name", "value"), [("tau", -1.0), ("momentum", 1.0)])
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        DebiasPL(**{name: value})
