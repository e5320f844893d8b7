"""FixMatch's loss worked by hand on a network whose logits are the images themselves."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.lightning_modules import FixMatch, PseudoLabelRefiner
from tailmatch.lightning_modules.bases.semi_supervised import PseudoLabelObserver
from tests.lightning_modules.pixel_network import PixelNetwork, image


def step(
    refiner: PseudoLabelRefiner | None = None,
    observer: PseudoLabelObserver | None = None,
    kind: type[FixMatch] = FixMatch,
    **kwargs: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    method = kind(num_classes=3, network=PixelNetwork, **kwargs)  # type: ignore[arg-type]
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    if refiner is not None:
        method.add_refiner(refiner)
    if observer is not None:
        method.add_observer(observer)
    strong = torch.cat([image(0, 1, 0), image(2, 0, 0)])
    batch = {
        "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([0])},
        "unlabeled": {
            "weak": torch.cat([image(0, 5, 0), image(0, 0, 1)]),  # one confident, one not
            "strong": [strong] * int(kwargs.get("strong_views", 1)),
            "index": torch.tensor([4, 2]),
        },
    }
    return method.training_step(batch, 0), logged


LABELED = -math.log(math.e / (math.e + 2))  # cross-entropy of logits (1, 0, 0) and class 0
STRONG = LABELED  # the confident image's strong view has logits (0, 1, 0) and pseudo-label 1


def test_only_confident_pseudo_labels_teach() -> None:
    loss, logged = step()
    # The confident row's maximum is e^5 / (e^5 + 2) = 0.987; the other's e / (e + 2) = 0.576.
    assert loss.item() == pytest.approx(LABELED + STRONG / 2, rel=1e-5)
    assert logged["selected"].item() == 0.5
    assert logged["confidence"].item() == pytest.approx((0.98670 + 0.57612) / 2, abs=1e-4)


def test_lambda_u_and_threshold() -> None:
    loss, _ = step(lambda_u=3.0)
    assert loss.item() == pytest.approx(LABELED + 3 * STRONG / 2, rel=1e-5)
    all_in, logged = step(threshold=0.5)
    other = -math.log(1 / (math.e**2 + 2))  # strong logits (2, 0, 0), pseudo-label 2
    assert logged["selected"].item() == 1
    assert all_in.item() == pytest.approx(LABELED + (STRONG + other) / 2, rel=1e-5)


def test_low_temperature_makes_predictions_confident() -> None:
    _, logged = step(temperature=0.2)  # e^5 / (e^5 + 2) for the second image now
    assert logged["selected"].item() == 1


def test_two_strong_views_average() -> None:
    loss, _ = step(strong_views=2)
    assert loss.item() == pytest.approx(LABELED + STRONG / 2, rel=1e-5)


def test_smoothing_is_of_both_losses() -> None:
    loss, _ = step(label_smoothing=0.3)
    # Target 0.8 on the class and 0.1 on each other: 0.8 * LABELED + 0.2 * log(e + 2).
    smoothed = 0.8 * LABELED + 0.2 * math.log(math.e + 2)
    assert loss.item() == pytest.approx(smoothed + smoothed / 2, rel=1e-5)


def test_soft_targets_are_the_whole_distribution() -> None:
    loss, _ = step(soft_targets=True, threshold=0.0, strong_views=2)
    log_total = math.log(math.e + 2)
    first = log_total - math.e**5 / (math.e**5 + 2)  # strong logits (0, 1, 0), target softmax(0, 5, 0)
    second = math.log(math.e**2 + 2) - 2 / (math.e + 2)  # strong logits (2, 0, 0), target softmax(0, 0, 1)
    assert loss.item() == pytest.approx(LABELED + (first + second) / 2, rel=1e-5)


class ToClassTwo:
    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        self.seen.append(index.tolist())
        return functional.one_hot(torch.full((len(probs),), 2), 3).float()


def test_selection_follows_the_refined_pseudo_label() -> None:
    refiner = ToClassTwo()
    loss, logged = step(refiner)
    first, second = -math.log(1 / (math.e + 2)), -math.log(1 / (math.e**2 + 2))
    assert refiner.seen == [[4, 2]]
    assert logged["selected"].item() == 1
    assert loss.item() == pytest.approx(LABELED + (first + second) / 2, rel=1e-5)


def test_no_gradient_flows_from_the_weak_view() -> None:
    method = FixMatch(num_classes=3, network=PixelNetwork)
    method.track = lambda **values: None  # type: ignore[method-assign]
    weak = image(0, 5, 0).clone().requires_grad_()
    strong = image(0, 1, 0).clone().requires_grad_()
    batch = {
        "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([0])},
        "unlabeled": {"weak": weak, "strong": [strong], "index": torch.tensor([0])},
    }
    method.training_step(batch, 0).backward()
    assert weak.grad is None and strong.grad is not None


def test_weights_scale_each_row_of_the_loss_and_see_all_rows_of_the_step() -> None:
    class Weighing(FixMatch):
        def weigh(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
            assert labeled is not None and not labeled.requires_grad
            seen.extend([probs, refined, index, labeled])
            return torch.tensor([0.25, 3.0])

    class Watching:
        def observe(self, raw: Tensor, refined: Tensor, weights: Tensor, index: Tensor) -> None:
            watched.append(weights)

    seen: list[Tensor] = []
    watched: list[Tensor] = []
    loss, logged = step(ToClassTwo(), observer=Watching(), kind=Weighing, temperature=0.5)
    first, second = -math.log(1 / (math.e + 2)), -math.log(1 / (math.e**2 + 2))
    assert loss.item() == pytest.approx(LABELED + (0.25 * first + 3 * second) / 2, rel=1e-5)
    assert logged["selected"].item() == 1.625 and [weights.tolist() for weights in watched] == [[0.25, 3.0]]
    probs, refined, index, labeled = seen
    raw = torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 1.0]]).softmax(dim=1)
    torch.testing.assert_close(probs, raw)  # not sharpened
    assert refined.argmax(dim=1).tolist() == [2, 2] and index.tolist() == [4, 2]
    torch.testing.assert_close(labeled, torch.tensor([[1.0, 0.0, 0.0]]).softmax(dim=1))


@pytest.mark.parametrize(
    ("name", "value"), [("threshold", 1.5), ("label_smoothing", -0.1), ("temperature", 0), ("strong_views", 0)]
)
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        FixMatch(num_classes=3, network=PixelNetwork, **{name: value})
