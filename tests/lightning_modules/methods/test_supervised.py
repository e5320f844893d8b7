"""The supervised step by hand, and class weights that begin at the right step also after a resume."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.losses import (
    LDAM,
    ClassificationLoss,
    ClassWeights,
    CrossEntropy,
    DeferredReweighting,
    Focal,
    InverseWeights,
    LogitAdjusted,
)
from tailmatch.lightning_modules.losses.class_weights import with_mean_one
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.views.mixup import mixup_partners
from tests.contract import Kill, Killed, assert_same, at_epoch_ends, last, run
from tests.lightning_modules.pixel_network import PixelNetwork


def step(images: Tensor, target: Tensor, counts: list[int] | None = None, **kwargs: Any) -> float:
    method = Supervised(num_classes=2, network=PixelNetwork, **kwargs)
    method.track = lambda **values: None  # type: ignore[method-assign]
    if counts is not None:
        method.loss.adapt(torch.tensor(counts), method.network.head)
        if method.class_weights is not None:
            method.label_weights = method.class_weights.weights(torch.tensor(counts))
    batch = {"labeled": {"weak": images, "target": target}}
    torch.manual_seed(SEED)
    return method.training_step(batch, 0).item()


SEED = 5
LOG4 = math.log(4.0)
IMAGES = torch.tensor([LOG4, 0.0]).view(1, 1, 1, 2).expand(2, 3, 1, 2)  # probs 0.8 and 0.2, twice
TARGET = torch.tensor([0, 1])
RIGHT, WRONG = -math.log(0.8), -math.log(0.2)


def test_the_default_is_cross_entropy() -> None:
    assert step(IMAGES, TARGET) == pytest.approx((RIGHT + WRONG) / 2)


def test_loss_and_class_weights_are_used() -> None:
    assert step(IMAGES, TARGET, loss=Focal()) == pytest.approx((0.2 * RIGHT + 0.8 * WRONG) / 2)
    adjusted = step(IMAGES, TARGET, [3, 1], loss=LogitAdjusted())
    assert adjusted == pytest.approx((math.log(13 / 12) + math.log(13)) / 2)
    # Inverse weights of counts 3 and 1: 0.5 and 1.5.
    weighted = step(IMAGES, TARGET, [3, 1], class_weights=InverseWeights())
    assert weighted == pytest.approx((0.5 * RIGHT + 1.5 * WRONG) / 2)


def test_class_weights_can_be_averaged_over_images_as_in_darps_retraining() -> None:
    """`-mean(sum(log p * q * w))` of bbuing9/DARP `train_crt.py`, on a batch whose weights do not sum to its size."""
    images, target = IMAGES[:1].expand(3, 3, 1, 2), torch.tensor([0, 0, 1])
    weights = InverseWeights(normalized=False)
    by_images = step(images, target, [3, 1], class_weights=weights)
    assert by_images == pytest.approx((2 * 0.5 * RIGHT + 1.5 * WRONG) / 3)
    by_weights = step(images, target, [3, 1], class_weights=InverseWeights())
    assert by_weights == pytest.approx((2 * 0.5 * RIGHT + 1.5 * WRONG) / 2.5)
    probs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    logits = images[:, 0, 0]
    mean = CrossEntropy().mean(logits, probs, torch.tensor([0.5, 1.5]), normalized=False)
    assert mean.item() == pytest.approx(by_images)
    assert not DeferredReweighting(weights, start_step=0).normalized


@pytest.mark.parametrize("loss", [CrossEntropy(0.1), Focal(2.0)], ids=lambda loss: type(loss).__name__)
def test_mixup_mixes_images_and_both_losses(loss: ClassificationLoss) -> None:
    images = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]]).view(3, 1, 1, 2).expand(3, 3, 1, 2)
    target, weights = torch.tensor([0, 1, 1]), torch.tensor([0.5, 1.5])
    mixed = step(images, target, [3, 1], loss=loss, class_weights=InverseWeights(), mixup=0.75)
    torch.manual_seed(SEED)
    weight, partner = mixup_partners(3, 0.75)
    share = float(weight[0])
    assert partner.tolist() != [0, 1, 2] and 0.5 <= share < 1
    logits = (share * images + (1 - share) * images[partner])[:, 0, 0]
    own, other = loss.mean(logits, target, weights), loss.mean(logits, target[partner], weights)
    assert mixed == pytest.approx((share * own + (1 - share) * other).item(), rel=1e-6)


class Recorded(CrossEntropy):
    """Notes for every step whether weights came with it."""

    def __init__(self) -> None:
        super().__init__()
        self.weighted: list[bool] = []

    def mean(
        self,
        logits: Tensor,
        target: Tensor,
        class_weights: Tensor | None = None,
        weights: Tensor | None = None,
        normalized: bool = True,
    ) -> Tensor:
        self.weighted.append(class_weights is not None)
        return super().mean(logits, target, class_weights, weights, normalized)


class Rising(ClassWeights):
    """Weights that differ, for data whose counts do not."""

    def weights(self, class_counts: Tensor) -> Tensor:
        return with_mean_one(torch.arange(1, len(class_counts) + 1))


@pytest.mark.parametrize(
    ("start", "first"),
    [({"start_epoch": 1}, 4), ({"start_step": 5}, 5), ({"start_share": 0.5}, 6)],
    ids=["epoch", "step", "share"],
)
def test_deferred_weights_begin_at_the_same_step_after_a_resume_in_mid_epoch(
    start: dict[str, Any], first: int, tmp_path: Path
) -> None:
    def method(loss: Recorded, **kwargs: Any) -> Supervised:
        return Supervised(loss=loss, class_weights=DeferredReweighting(Rising(), **start), **kwargs)

    losses = [Recorded() for _ in range(3)]
    whole, killed, resumed = (partial(method, loss) for loss in losses)
    run(whole, tmp_path, at_epoch_ends(tmp_path / "whole"))  # type: ignore[arg-type]
    with pytest.raises(Killed):
        run(killed, tmp_path, last(tmp_path / "killed", every_n_train_steps=3), Kill(5))  # type: ignore[arg-type]
    run(resumed, tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=tmp_path / "killed" / "last.ckpt")  # type: ignore[arg-type]
    assert losses[0].weighted == [False] * first + [True] * (12 - first)
    assert losses[2].weighted == losses[0].weighted[3:]

    run(partial(Supervised), tmp_path, at_epoch_ends(tmp_path / "plain"))  # type: ignore[arg-type]
    saved = {
        name: torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "resumed", "plain")
    }
    assert_same(saved["whole"], saved["resumed"], "state_dict")
    assert not torch.equal(saved["whole"]["network.head.weight"], saved["plain"]["network.head.weight"])


def test_ldam_trains_on_a_normalized_head_and_is_refused_on_a_linear_one(tmp_path: Path) -> None:
    def method(network: Any, cosine_scale: float | None, **kwargs: Any) -> Supervised:
        return Supervised(loss=LDAM(), network=partial(network, cosine_scale=cosine_scale), **kwargs)

    trainer = run(partial(method, cosine_scale=30.0), tmp_path)  # type: ignore[arg-type]
    model = trainer.lightning_module
    assert isinstance(model, Supervised) and isinstance(model.loss, LDAM)
    assert model.loss.margins.tolist() == [15.0] * 10  # equal counts: 30 * 0.5 for all
    with pytest.raises(ValueError, match="LDAM needs a network with a normalized head"):
        run(partial(method, cosine_scale=None), tmp_path)  # type: ignore[arg-type]


def test_a_checkpoint_holds_nothing_that_follows_from_the_data() -> None:
    plain = Supervised(num_classes=10, network=partial(CifarResNet, depth=8))
    other = Supervised(
        num_classes=10, loss=LDAM(), class_weights=InverseWeights(), network=partial(CifarResNet, depth=8)
    )
    assert plain.state_dict().keys() == other.state_dict().keys()
