"""Remix's labels by hand, and its loss beside that of mixup."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from tailmatch.lightning_modules import Remix, Supervised
from tailmatch.lightning_modules.losses import InverseWeights
from tailmatch.lightning_modules.methods.remix import label_share
from tailmatch.lightning_modules.views.mixup import mixup_partners
from tests.lightning_modules.pixel_network import PixelNetwork, image

COUNTS = torch.tensor([90, 30, 11])


def test_labels_by_hand() -> None:
    own, other = torch.tensor([30, 90, 90, 30, 11, 30, 30]), torch.tensor([90, 30, 30, 11, 30, 30, 91])
    share = torch.tensor([0.6, 0.6, 0.4, 0.4, 0.6, 0.7, 0.4])
    # Rarer by three, and larger: its label. More frequent and smaller: none of it. 30 and 11 differ by less than three.
    assert label_share(share, own, other, 3, 0.5).tolist() == pytest.approx([1, 0.6, 0, 0.4, 0.6, 0.7, 0.4])
    assert label_share(share, own, other, 3, 1).tolist() == pytest.approx([1, 0, 0, 0.4, 0.6, 0.7, 1])


def loss_of(kind: type[Supervised], **kwargs: Any) -> float:
    method: Any = kind(3, network=PixelNetwork, **kwargs)
    method.class_counts.copy_(COUNTS)
    torch.manual_seed(4)
    return float(method.mean_loss(IMAGES, TARGET).detach())


IMAGES = torch.cat([image(2, 0, 0), image(0, 1, 0), image(0.5, 0, 1), image(0, 0, 3)])
TARGET = torch.tensor([0, 1, 2, 0])


def test_the_loss_is_that_of_mixtures_with_these_labels() -> None:
    torch.manual_seed(4)
    weight, partner = mixup_partners(4, 1.0)
    share = weight[0]
    logits = (share * IMAGES + (1 - share) * IMAGES[partner])[:, 0, 0]
    label = torch.where(3 * COUNTS[TARGET] <= COUNTS[TARGET[partner]], 1.0, share)
    assert label.max() == 1 and label.min() == share  # both happen
    own, other = (functional.cross_entropy(logits, each, reduction="none") for each in (TARGET, TARGET[partner]))
    expected = (label * own + (1 - label) * other).mean()
    assert loss_of(Remix) == pytest.approx(expected.item(), rel=1e-6)


def test_without_much_rarer_classes_it_is_mixup() -> None:
    assert loss_of(Remix, kappa=10.0, mixup=0.75) == pytest.approx(loss_of(Supervised, mixup=0.75), rel=1e-6)


def test_bad_values_are_named() -> None:
    for name, value in {"kappa": 0.5, "tau": 2, "mixup": 0.0}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            Remix(3, network=PixelNetwork, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave one out"):
        Remix(3, network=PixelNetwork, class_weights=InverseWeights())
