"""Sharpening, mixup, interleaving and ramp-up worked by hand; what happens to BatchNorm."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tailmatch.lightning_modules import MixMatch
from tailmatch.lightning_modules.bases.semi_supervised import sharpen
from tailmatch.lightning_modules.networks import CifarResNet, Network
from tailmatch.lightning_modules.networks.batch_norm import running_statistics_kept
from tailmatch.lightning_modules.views.mixup import interleaved_order, mixup, mixup_partners


def test_sharpening_by_hand() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.9, 0.1]])
    # T = 0.5 squares: 0.25, 0.09, 0.04 of 0.38; 0.81, 0.01 of 0.82.
    expected = torch.tensor([[0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38], [0.0, 0.81 / 0.82, 0.01 / 0.82]])
    assert torch.allclose(sharpen(probs, 0.5), expected)
    assert torch.equal(sharpen(probs, 1.0), probs)


def test_sharpening_many_classes_does_not_underflow() -> None:
    probs = torch.full((1, 10_000), 1e-4)
    assert torch.allclose(sharpen(probs, 0.05), probs)


def test_mixup_by_hand() -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 2.0]])
    mixed = mixup(values, torch.tensor([0.5, 0.75, 1.0]), torch.tensor([2, 0, 1]))
    assert torch.allclose(mixed, torch.tensor([[2.5, 1.0], [0.25, 0.75], [4.0, 2.0]]))
    images = torch.arange(24.0).view(3, 2, 2, 2)
    assert torch.allclose(mixup(images, torch.tensor([0.6, 0.6, 0.6]), torch.tensor([1, 2, 0]))[0], images[0] + 0.4 * 8)


@pytest.mark.parametrize("per_image", [True, False])
def test_the_own_image_has_the_larger_weight(per_image: bool) -> None:
    torch.manual_seed(0)
    weight, partner = mixup_partners(400, 0.75, per_image)
    assert weight.shape == (400,) and (weight >= 0.5).all() and (weight <= 1).all()
    assert len(weight.unique()) == (400 if per_image else 1)
    assert partner.sort().values.equal(torch.arange(400))
    if per_image:  # E max(l, 1 - l) for Beta(0.75, 0.75): 1/2 + E|l - 1/2| = 0.7782 by integration
        assert weight.mean().item() == pytest.approx(0.7782, abs=0.02)


@pytest.mark.parametrize(("chunks", "size"), [(3, 7), (2, 4), (5, 3), (1, 4), (4, 8)])
def test_interleaving_is_its_own_inverse(chunks: int, size: int) -> None:
    order = interleaved_order(chunks, size)
    assert order[order].equal(torch.arange(chunks * size))


def test_interleaving_by_hand() -> None:
    # Three chunks of seven rows: parts of 2, 2 and 3. Parts 1 and 2 of the first chunk go to chunks 1 and 2.
    order = interleaved_order(3, 7).view(3, 7)
    assert order.tolist() == [
        [0, 1, 9, 10, 18, 19, 20],
        [7, 8, 2, 3, 11, 12, 13],
        [14, 15, 16, 17, 4, 5, 6],
    ]


def test_every_chunk_has_labeled_images_in_equal_parts() -> None:
    labeled = interleaved_order(4, 8).view(4, 8) < 8
    assert labeled.sum(dim=1).tolist() == [2, 2, 2, 2]


def method(**kwargs: object) -> MixMatch:
    torch.manual_seed(0)
    made = MixMatch(num_classes=3, network=lambda k: CifarResNet(k, depth=8), **kwargs)  # type: ignore[arg-type]
    made.__dict__["_trainer"] = None
    return made


def mixed(made: MixMatch) -> torch.Tensor:
    torch.manual_seed(1)
    views = [torch.rand(8, 3, 8, 8) for _ in range(2)]
    logits, target, unlabeled_logits, unlabeled_target = made.mixed_logits(
        torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]), views, torch.rand(8, 3).softmax(1)
    )
    assert logits.shape == target.shape == (4, 3) and unlabeled_logits.shape == unlabeled_target.shape == (16, 3)
    assert torch.allclose(torch.cat([target, unlabeled_target]).sum(dim=1), torch.ones(20))
    return torch.cat([logits, unlabeled_logits])


def statistics(network: Network) -> list[torch.Tensor]:
    return [m.running_mean.clone() for m in network.modules() if isinstance(m, nn.BatchNorm2d)]  # type: ignore[union-attr]


def test_running_statistics_see_the_first_chunk_or_every_pass() -> None:
    counters = {}
    for every in (False, True):
        made = method(statistics_of_every_pass=every)
        mixed(made)
        [norm, *_] = [m for m in made.network.modules() if isinstance(m, nn.BatchNorm2d)]
        counters[every] = int(norm.num_batches_tracked)  # type: ignore[arg-type]
    assert counters == {False: 1, True: 5}


def test_side_passes_leave_running_statistics_alone_but_normalize_by_the_batch() -> None:
    network = CifarResNet(3, depth=8)
    images = torch.rand(6, 3, 8, 8)
    before = statistics(network)
    with running_statistics_kept(network):
        kept = network(images)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(network), strict=True))
    updated = network(images)
    assert torch.allclose(kept, updated)
    assert any(not torch.equal(a, b) for a, b in zip(before, statistics(network), strict=True))


def test_chunks_do_not_change_what_a_network_without_batch_norm_says() -> None:
    made = [method(interleaved=interleaved) for interleaved in (True, False)]
    for one in made:
        one.network.eval()
    assert torch.allclose(mixed(made[0]), mixed(made[1]), atol=1e-5)


@pytest.mark.parametrize(
    ("rampup_steps", "step", "share"), [(100, 0, 0.0), (100, 25, 0.25), (100, 500, 1.0), (None, 40, 0.2), (0, 0, 1.0)]
)
def test_ramp(rampup_steps: int | None, step: int, share: float) -> None:
    made = method(rampup_steps=rampup_steps)
    made._trainer = SimpleNamespace(global_step=step, max_steps=200, max_epochs=-1)  # type: ignore[assignment]
    assert made.ramp() == pytest.approx(share)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mix_alpha": 0.0}, "mix_alpha is 0.0; it must be above 0"),
        ({"rampup_steps": -1}, "rampup_steps is -1; it must be at least 0"),
        ({"views": 0}, "views is 0; it must be at least 1"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
    ],
)
def test_bad_arguments(kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**kwargs)
