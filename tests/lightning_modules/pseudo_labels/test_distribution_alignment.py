"""Distribution alignment on two classes, worked by hand."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tailmatch.callbacks import DistributionAlignment
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules import FixMatch, Supervised
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.pseudo_labels.distribution_alignment import align
from tailmatch.lightning_modules.pseudo_labels.running_prior import RecentPrior

INDEX = torch.tensor([0, 1])


def test_align_by_hand() -> None:
    probs = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    # The model says class 0 in 8 of 10, the target has 2 of 10: weights 1/4 and 4.
    aligned = align(probs, torch.tensor([0.2, 0.8]), torch.tensor([0.8, 0.2]))
    expected = torch.tensor([[0.125 / 2.125, 2 / 2.125], [0.225 / 0.625, 0.4 / 0.625]])
    assert torch.allclose(aligned, expected, atol=1e-4)


def set_up(alignment: DistributionAlignment, method: type = FixMatch) -> Any:
    data = Digits(image_size=8, class_counts=ListedCounts([4] * 10, [6] * 10))
    data.setup("fit")
    trainer = SimpleNamespace(datamodule=data)
    model = method(num_classes=10, network=partial(CifarResNet, depth=8))
    alignment.setup(trainer, model, "fit")  # type: ignore[arg-type]
    return model


def two_classes(batches: int) -> DistributionAlignment:
    alignment = DistributionAlignment(batches=batches)
    alignment.target_totals, alignment._prior = torch.tensor([0.5, 0.5]), RecentPrior(2, batches)
    return alignment


def test_the_running_mean_begins_uniform_and_excludes_the_present_batch() -> None:
    alignment = two_classes(2)
    first = torch.tensor([[0.9, 0.1], [0.7, 0.3]])  # mean (0.8, 0.2)
    assert torch.allclose(alignment.refine(first, INDEX), first)
    # Now the mean of (0.5, 0.5) and (0.8, 0.2): (0.65, 0.35).
    second = torch.tensor([[0.65, 0.35], [0.35, 0.65]])
    expected = torch.tensor([[0.5, 0.5], [0.35 / 0.65, 0.65 / 0.35]])
    expected[1] /= expected[1].sum()
    assert torch.allclose(alignment.refine(second, INDEX), expected, atol=1e-5)
    # Two batches: the uniform start is gone; (0.8, 0.2) and (0.5, 0.5) average to (0.65, 0.35) again.
    assert torch.allclose(alignment.refine(second, INDEX), expected, atol=1e-5)
    # And now (0.5, 0.5) twice: nothing to align.
    assert torch.allclose(alignment.refine(first, INDEX), first, atol=1e-5)


def test_state() -> None:
    first = two_classes(3)
    probs = torch.tensor([[0.9, 0.1], [0.7, 0.3]])
    for _ in range(4):
        first.refine(probs, INDEX)
    second = two_classes(3)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.refine(probs, INDEX), second.refine(probs, INDEX))
    with pytest.raises(ValueError, match=r"is over \(3, 2\) \(batches, classes\), and this run's over \(4, 2\)"):
        two_classes(4).load_state_dict(first.state_dict())


def test_it_registers_before_sharpening_with_the_labeled_shares() -> None:
    alignment = DistributionAlignment()
    model = set_up(alignment)
    assert model._aligners == [alignment] and model._refiners == []
    assert torch.allclose(alignment.target_totals, torch.full((10,), 0.1))


def test_an_exponent_flattens_the_target() -> None:
    alignment = DistributionAlignment([100.0, 10.0, 1.0] + [0.0] * 7, exponent=0.5)
    set_up(alignment)
    assert alignment.target_totals[:3].tolist() == pytest.approx([0.7061, 0.2233, 0.0706], abs=1e-4)


def test_errors() -> None:
    with pytest.raises(ValueError, match="aligns pseudo-labels, and Supervised has none"):
        set_up(DistributionAlignment(), Supervised)
    with pytest.raises(ValueError, match="target has 2 entries"):
        set_up(DistributionAlignment([1.0, 2.0]))
    with pytest.raises(ValueError, match="batches is 0; it must be at least 1"):
        DistributionAlignment(batches=0)
    with pytest.raises(ValueError, match="exponent is -1"):
        DistributionAlignment(exponent=-1.0)
