"""Each loss by hand, its limits, its gradients where a probability is 0 or 1."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.lightning_modules.losses import (
    LDAM,
    BalancedSoftmax,
    ClassificationLoss,
    CrossEntropy,
    Focal,
    GeneralizedCrossEntropy,
    LogitAdjusted,
    SymmetricCrossEntropy,
)
from tailmatch.lightning_modules.losses.ldam import ldam_margins
from tailmatch.lightning_modules.networks.network import DropoutLinear, NormalizedLinear

LOG4 = math.log(4.0)
LOGITS = torch.tensor([[LOG4, 0.0], [LOG4, 0.0]])  # probs 0.8 and 0.2, twice
TARGET = torch.tensor([0, 1])
RIGHT, WRONG = -math.log(0.8), -math.log(0.2)  # cross-entropies of the two rows


def adapted(loss: ClassificationLoss, counts: list[int], scale: float = 1.0) -> ClassificationLoss:
    loss.adapt(torch.tensor(counts), NormalizedLinear(4, len(counts), scale))
    return loss


BY_HAND: dict[str, tuple[ClassificationLoss, list[float]]] = {
    "cross-entropy": (CrossEntropy(), [RIGHT, WRONG]),
    "smoothed": (CrossEntropy(0.2), [0.9 * RIGHT + 0.1 * WRONG, 0.9 * WRONG + 0.1 * RIGHT]),
    "focal": (Focal(), [0.2 * RIGHT, 0.8 * WRONG]),
    "focal, gamma 2": (Focal(2.0), [0.04 * RIGHT, 0.64 * WRONG]),
    # Counts 16 and 1: margins 0.25 and 0.5, times the scale 2.
    "LDAM": (
        adapted(LDAM(), [16, 1], scale=2.0),
        [math.log(1 + math.exp(0.5 - LOG4)), math.log(1 + math.exp(LOG4 + 1))],
    ),
    "balanced softmax": (adapted(BalancedSoftmax(), [3, 1]), [math.log(13 / 12), math.log(13)]),
    "logit-adjusted": (adapted(LogitAdjusted(), [3, 1]), [math.log(13 / 12), math.log(13)]),
    "logit-adjusted, tau 2": (adapted(LogitAdjusted(2.0), [3, 1]), [math.log(37 / 36), math.log(37)]),
    "symmetric": (
        SymmetricCrossEntropy(),
        [0.1 * RIGHT + 0.2 * 4 * math.log(10), 0.1 * WRONG + 0.8 * 4 * math.log(10)],
    ),
    "generalized": (
        GeneralizedCrossEntropy(0.5),
        [2 * (1 - math.sqrt(0.8)), 2 * (1 - math.sqrt(0.2))],
    ),
    "generalized, q 1": (GeneralizedCrossEntropy(1.0), [0.2, 0.8]),  # half the mean absolute error to one-hot
}
every_loss = pytest.mark.parametrize("name", BY_HAND)


@every_loss
def test_by_hand(name: str) -> None:
    loss, expected = BY_HAND[name]
    assert loss(LOGITS, TARGET).tolist() == pytest.approx(expected, rel=1e-5)
    assert loss.mean(LOGITS, TARGET).item() == pytest.approx(sum(expected) / 2, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in BY_HAND if not name.startswith("focal")])
def test_weighted_mean_divides_by_the_weights_of_the_targets(name: str) -> None:
    loss, (right, wrong) = BY_HAND[name]
    weighted = loss.mean(LOGITS, TARGET, torch.tensor([0.5, 2.0]))
    assert weighted.item() == pytest.approx((0.5 * right + 2.0 * wrong) / 2.5, rel=1e-5)


def random_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 5, generator=generator) * 3, torch.randint(5, (32,), generator=generator)


def test_weighted_cross_entropy_is_torchs() -> None:
    logits, target = random_batch()
    weights = torch.tensor([0.1, 0.4, 1.0, 1.5, 2.0])
    torch.testing.assert_close(
        CrossEntropy().mean(logits, target, weights), functional.cross_entropy(logits, target, weight=weights)
    )


def test_focal_weights_are_inside_as_in_the_authors_code() -> None:
    right, wrong = 0.5 * RIGHT, 1.5 * WRONG
    expected = ((1 - 0.8**0.5) * right + (1 - 0.2**1.5) * wrong) / 2
    assert Focal().mean(LOGITS, TARGET, torch.tensor([0.5, 1.5])).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "scale"),
    [
        pytest.param(Focal(0.0), 1.0, id="focal with gamma 0"),
        pytest.param(adapted(LDAM(0.0), [900, 90, 9, 5, 1], scale=30.0), 30.0, id="LDAM without a margin, at scale 30"),
        pytest.param(adapted(BalancedSoftmax(), [7] * 5), 1.0, id="balanced softmax of equal counts"),
        pytest.param(adapted(LogitAdjusted(2.0), [7] * 5), 1.0, id="logit adjustment of equal counts"),
        pytest.param(adapted(LogitAdjusted(0.0), [9, 0, 1, 2, 3]), 1.0, id="logit adjustment with tau 0"),
        pytest.param(SymmetricCrossEntropy(1.0, 0.0), 1.0, id="symmetric without the reverse part"),
        pytest.param(GeneralizedCrossEntropy(1e-6), 1.0, id="generalized, q towards 0"),
    ],
)
def test_reduces_to_cross_entropy(loss: ClassificationLoss, scale: float) -> None:
    cosines, target = random_batch()
    logits = scale * cosines.tanh()
    expected = functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(loss(logits, target), expected, rtol=1e-4, atol=1e-5)


def test_margins_fall_with_the_fourth_root_of_the_count() -> None:
    assert ldam_margins(torch.tensor([10000, 625, 1]), 0.5).tolist() == pytest.approx([0.05, 0.1, 0.5])


def test_ldam_on_a_normalized_head_is_the_authors_formula() -> None:
    head = NormalizedLinear(8, 3, scale=30.0)
    features, target = torch.randn(6, 8), torch.tensor([0, 1, 2, 2, 1, 0])
    loss = LDAM(max_margin=0.4)
    loss.adapt(torch.tensor([256, 16, 1]), head)
    cosine = functional.cosine_similarity(features[:, None], head.weight[None], dim=2)
    for row, label in enumerate(target.tolist()):
        cosine[row, label] -= [0.1, 0.2, 0.4][label]
    expected = functional.cross_entropy(30 * cosine, target, reduction="none")
    torch.testing.assert_close(loss(head(features), target), expected, rtol=1e-4, atol=1e-4)


@every_loss
@pytest.mark.parametrize("size", [60.0, 200.0])
def test_gradients_are_finite_where_probs_are_0_and_1(name: str, size: float) -> None:
    logits = torch.tensor([[size, -size], [size, -size]], requires_grad=True)
    BY_HAND[name][0].mean(logits, TARGET, torch.tensor([1.0, 1.0])).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_focal_with_a_power_below_one_has_a_gradient_at_certainty() -> None:
    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)
    Focal(0.5).mean(logits, torch.tensor([0])).backward()
    assert logits.grad is not None and logits.grad.abs().max() == 0


@pytest.mark.parametrize("loss", [BalancedSoftmax(), LogitAdjusted(0.5)])
def test_a_class_without_images_drops_out_of_the_softmax(loss: ClassificationLoss) -> None:
    logits = torch.tensor([[1.0, 9.0, 2.0]], requires_grad=True)
    value = adapted(loss, [3, 0, 1])(logits, torch.tensor([2]))
    without = adapted(type(loss)() if isinstance(loss, BalancedSoftmax) else LogitAdjusted(0.5), [3, 1])
    torch.testing.assert_close(value, without(logits[:, [0, 2]], torch.tensor([1])))
    value.backward()
    assert logits.grad is not None and logits.grad[0, 1] == 0 and logits.grad.isfinite().all()


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LDAM needs labeled images of every class, and there is none of class 1, 3 "):
        adapted(LDAM(), [3, 0, 1, 0])
    with pytest.raises(ValueError, match=r"this one's is DropoutLinear: set the network's cosine_scale"):
        LDAM().adapt(torch.tensor([3, 1]), DropoutLinear(4, 2))
    with pytest.raises(ValueError, match=r"class counts are \[0.0, 0.0\]"):
        adapted(LogitAdjusted(), [0, 0])


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        (CrossEntropy, {"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        (Focal, {"gamma": -1.0}, "gamma is -1.0"),
        (LDAM, {"max_margin": -0.5}, "max_margin is -0.5"),
        (LogitAdjusted, {"tau": -1.0}, "tau is -1.0"),
        (SymmetricCrossEntropy, {"alpha": 0.0, "beta": 0.0}, "alpha and beta are both 0"),
        (SymmetricCrossEntropy, {"beta": -0.1}, "beta is -0.1"),
        (GeneralizedCrossEntropy, {"q": 0.0}, r"q is 0.0; it must be in \(0, 1\] \(towards 0"),
        (GeneralizedCrossEntropy, {"q": 1.2}, "q is 1.2"),
    ],
)
def test_arguments_are_checked(loss: type[nn.Module], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(**arguments)
