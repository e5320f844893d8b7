"""CPE's branches and losses by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import CPE
from tailmatch.lightning_modules.methods.cpe import branches_of
from tailmatch.lightning_modules.networks.class_wise_head import ClassWiseHead
from tests.lightning_modules.pixel_network import PixelNetwork, image

SORTED = torch.arange(10, 0, -1)


def test_branches_by_hand() -> None:
    found = branches_of(torch.tensor([0, 3, 7]), SORTED, (0.0, 0.2, 0.4))
    assert found.sum(dim=0).tolist() == [1, 2, 3] and found.sum() == 6
    assert found.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    ends = branches_of(torch.tensor([1, 2, 4]), SORTED, (0.0, 0.2, 0.4))
    assert ends.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_branches_go_by_rank() -> None:
    counts = SORTED.flip(0)  # class 9 is the most frequent
    assert branches_of(torch.tensor([9, 6, 2]), counts, (0.0, 0.2, 0.4)).sum(dim=0).tolist() == [1, 2, 3]


class Shifts(nn.Module):
    """A norm that adds a number to the first channel."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, feature_map: Tensor) -> Tensor:
        return feature_map + self.shift * torch.tensor([1.0, 0.0, 0.0])[:, None, None]


class PixelMap(PixelNetwork):
    """Pixels as a map of one place, with a linear head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.head = nn.Linear(num_classes, num_classes)

    def _feature_map(self, normalized: Tensor) -> Tensor:
        return self._features(normalized)[:, :, None, None]


def method_of_pixels(**kwargs: object) -> tuple[CPE, dict[str, Tensor]]:
    """A method whose branches H, M, T add 0, 3, -3 to the first logit, and whose heads multiply by 1, 1 and 2."""
    method = CPE(num_classes=3, network=PixelMap, cuts=[0.4, 0.7], **kwargs)  # type: ignore[arg-type]
    head = method.network.head
    assert isinstance(head, ClassWiseHead)
    head.norms = nn.ModuleList(Shifts(shift) for shift in (0.0, 3.0, -3.0))
    for linear, factor in ((method.first, 1), (head.head, 1), (method.third, 2)):
        linear.load_state_dict({"weight": factor * torch.eye(3), "bias": torch.zeros(3)})
    method.class_counts.copy_(torch.tensor([20, 70, 10]))  # ranks 1, 0, 2
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    return method, logged


def cross_entropy(target: int, *logits: float) -> float:
    return math.log(sum(math.exp(z) for z in logits)) - logits[target]


def test_losses_by_hand() -> None:
    method, logged = method_of_pixels(lambda_u=2.0, threshold=0.8)
    batch = {
        "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([2])},
        "unlabeled": {
            "weak": torch.cat([image(0, 5, 0), image(0, 0, 1.5), image(4, 0, 0)]),
            "strong": [torch.cat([image(0, 1, 0), image(0, 2, 0), image(1, 0, 0)])],
            "index": torch.arange(3),
        },
    }
    loss = method.training_step(batch, 0)
    # Maxima: 0.987, 0.691, 0.965; the third head's logits are twice as large: 0.909 for the second image.
    assert [logged[f"selected{name}"].item() for name in ("_first", "", "_third")] == pytest.approx([2 / 3, 2 / 3, 1])
    # Class 1 is most frequent: H alone. Class 0 is next: H and M (1 of 3 classes left out). Class 2: all three.
    first = (cross_entropy(1, 0, 1, 0) + cross_entropy(0, 1, 0, 0) + cross_entropy(0, 4, 0, 0)) / 3
    third = cross_entropy(1, 0, 2, 0) + cross_entropy(0, 2, 0, 0) + cross_entropy(0, 8, 0, 0)
    third += cross_entropy(2, 0, 4, 0) + cross_entropy(2, 6, 4, 0) + cross_entropy(2, -6, 4, 0)
    expected = {"_first": first, "": first, "_third": third / 6}
    for name, value in expected.items():
        assert logged[f"loss_unlabeled{name}"].item() == pytest.approx(value, rel=1e-5)
    log_prior = [math.log(share) for share in (0.2, 0.7, 0.1)]
    total = 2 * sum(expected.values())
    for name, factor, tau in (("_first", 1, 0), ("", 1, 2), ("_third", 2, 4)):
        value = cross_entropy(2, *(z + tau * p for z, p in zip((factor, 0, 0), log_prior, strict=True)))
        assert logged[f"loss_labeled{name}"].item() == pytest.approx(value, rel=1e-5)
        total += value
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_nothing_selected_is_no_loss() -> None:
    method, logged = method_of_pixels(threshold=1.0)
    weak = image(0, 1, 0)
    unlabeled = {"weak": weak, "strong": [weak], "index": torch.tensor([0])}
    loss = method.training_step(
        {"labeled": {"weak": weak, "target": torch.tensor([1])}, "unlabeled": unlabeled},  # type: ignore[dict-item]
        0,
    )
    assert loss.isfinite() and logged["loss_unlabeled"].item() == 0


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("taus", [0, -1, 2], r"taus\[1\] is -1"),
        ("taus", [0, 2], "3 numbers"),
        ("cuts", [0.5], "2 numbers"),
        ("cuts", [0.5, 0.2], "the first must not be above"),
        ("soft_targets", True, "leave it out"),
    ],
)
def test_bad_values_are_named(name: str, value: object, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        CPE(3, network=PixelMap, **{name: value})  # type: ignore[arg-type]


def test_a_network_can_be_given_again() -> None:
    first = CPE(3, network=PixelMap)
    assert set(CPE(3, network=first.network).state_dict()) == set(first.state_dict())
