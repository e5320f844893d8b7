"""New heads: weights by hand, against numpy and scikit-learn, and what each of them refuses."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from tailmatch.lightning_modules.heads import CRT, LWS, NCM, NewHead, TauNorm
from tailmatch.lightning_modules.heads.ncm import NearestMeanHead
from tailmatch.lightning_modules.heads.tau_norm import GRID, balanced_accuracy, tau_normalized
from tailmatch.lightning_modules.heads.trained import ScaledHead
from tailmatch.lightning_modules.networks import CifarResNet

network = partial(CifarResNet, 3, depth=8)


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return layer


# Re-training and weight scaling


def test_crt_is_the_networks_own_head_and_takes_nothing() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.head.state_dict().items()}
    head = CRT().build(net)
    CRT().begin(head, {"weight": torch.ones(3, 64), "bias": torch.ones(3)})
    assert head is net.head
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_lws_scales_weights_and_bias_and_trains_the_scales_alone() -> None:
    head = ScaledHead(linear([[1.0, 2.0], [0.0, -1.0]], [0.5, 1.0]), 2)
    features = torch.tensor([[3.0, 1.0]])  # w x + b: 5.5 and 0
    assert head(features).tolist() == [[5.5, 0.0]]  # as the checkpoint's at first
    head.scale.data = torch.tensor([2.0, 3.0])
    features = torch.tensor([[1.0, 1.0]])  # 3.5 and 0
    assert head(features).tolist() == [[7.0, 0.0]]
    head(torch.tensor([[1.0, 0.0]])).sum().backward()  # d f_k (w_k x + b_k) / d f_k = w_k x + b_k = 1.5 and 1
    assert head.scale.grad is not None and head.scale.grad.tolist() == [1.5, 1.0]
    assert [name for name, p in head.named_parameters() if p.requires_grad] == ["scale"]


def test_lws_begins_with_the_trained_head() -> None:
    net, trained = network(), network().head.state_dict()
    head = LWS().build(net)
    LWS().begin(head, trained)
    assert torch.equal(head.get_parameter("head.weight"), trained["weight"])
    with pytest.raises(ValueError, match="of another shape: weight"):
        LWS().begin(head, {"weight": torch.ones(4, 64), "bias": torch.ones(4)})


# Tau-normalization


def test_tau_normalized_weights_by_hand() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.25], [0.0, 0.0]])  # lengths 5, 1/4 and 0
    expected = {
        0.0: [[3, 4], [0, 0.25], [0, 0]],
        0.5: [[3 / math.sqrt(5), 4 / math.sqrt(5)], [0, 0.5], [0, 0]],
        1.0: [[0.6, 0.8], [0, 1], [0, 0]],
        2.0: [[0.12, 0.16], [0, 4], [0, 0]],
    }
    for tau, rows in expected.items():
        torch.testing.assert_close(tau_normalized(weight, tau), torch.tensor(rows, dtype=torch.float))


def test_the_grid_is_the_authors() -> None:
    np.testing.assert_allclose(GRID, np.linspace(0, 2, 21), rtol=1e-12)
    assert TauNorm().taus == list(GRID)


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    random = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(60, 5, generator=random), torch.randint(4, (60,), generator=random)  # no class 4
    predicted = logits.argmax(dim=1)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(targets, predicted)
    assert balanced_accuracy(logits, targets).item() == pytest.approx(expected)


def test_the_smallest_tau_of_the_highest_balanced_accuracy_is_taken() -> None:
    # Class 0 has a long weight. The image of class 1 at (1, 0.6) is right where 4^(1 - tau) < 0.6: beyond tau 1.37.
    # The image of class 0 at (1, 0.2) is right where 4^(1 - tau) > 0.2: below tau 2.16, so on all of the grid.
    head = linear([[4.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    features, targets = torch.tensor([[1.0, 0.6], [1.0, 0.2]]), torch.tensor([1, 0])
    found = TauNorm().compute(head, features, targets)
    assert found.startswith("tau 1.4 of 21 in [0, 2]: balanced accuracy 1.0000 on 2 validation images; 0.5000 with")
    torch.testing.assert_close(head.weight.data, torch.tensor([[4**-0.4, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize(("keep", "bias", "score"), [(False, [0.0, 0.0], "1.0000"), (True, [9.0, 0.0], "0.5000")])
def test_the_bias_is_dropped_or_kept(keep: bool, bias: list[float], score: str) -> None:
    head = linear([[1.0, 0.0], [0.0, 1.0]], [9.0, 0.0])
    found = TauNorm(bias=keep).compute(head, torch.eye(2), torch.tensor([0, 1]))
    assert head.bias.tolist() == bias
    assert f"balanced accuracy {score}" in found and "tau 0 of" in found  # all are equal: the smallest


def test_tau_norm_begins_with_the_trained_head() -> None:
    net, trained = network(), network().head.state_dict()
    head = TauNorm().build(net)
    TauNorm().begin(head, trained)
    assert head is net.head and torch.equal(head.get_parameter("weight"), trained["weight"])


@pytest.mark.parametrize(
    ("taus", "message"),
    [
        ([], r"taus are \[\]; they must be one or more rising numbers"),
        ([1.0, 0.5], r"taus are \[1.0, 0.5\]"),
        ([0.5, 0.5], "rising"),
        ([-0.5, 0.5], r"taus\[0\] is -0.5; it must be at least 0"),
    ],
)
def test_tau_norm_checks_its_arguments(taus: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TauNorm(taus=taus)


def test_tau_norm_refuses_a_head_without_lengths_and_data_without_validation() -> None:
    with pytest.raises(ValueError, match="head is a NormalizedLinear; it must be linear"):
        TauNorm().build(network(cosine_scale=30.0))
    data: Any = SimpleNamespace(val=None)
    with pytest.raises(ValueError, match="there are none: give val_holdout"):
        TauNorm().images(data)


# Nearest class mean

POINTS = torch.tensor([[4.0, 3.0], [2.0, 5.0], [0.0, 1.0]])  # mean (2, 3); centered (2, 0), (0, 2), (-2, -2)


def nearest_mean(features: Tensor, targets: Tensor, num_classes: int) -> NearestMeanHead:
    head = NearestMeanHead(features.shape[1], num_classes)
    NCM().compute(head, features, targets)
    return head


def test_class_means_of_three_points_by_hand() -> None:
    head = nearest_mean(POINTS, torch.tensor([0, 0, 1]), 2)
    assert head.center.tolist() == [2.0, 3.0]
    half = math.sqrt(0.5)
    torch.testing.assert_close(head.weight.data, torch.tensor([[half, half], [-half, -half]]))
    cosines = head(torch.tensor([[7.0, 3.0], [2.0, 2.0], [4.0, 5.0]]))  # centered (5, 0), (0, -1), (2, 2)
    torch.testing.assert_close(cosines, torch.tensor([[half, -half], [-half, half], [1.0, -1.0]]))


def test_class_means_are_those_of_numpy() -> None:
    random = np.random.default_rng(0)
    features, queries = random.normal(size=(50, 6)) + 3, random.normal(size=(20, 6)) + 3
    targets = np.arange(50) % 4
    head = nearest_mean(torch.tensor(features).float(), torch.tensor(targets), 4)

    def unit(rows: Any) -> Any:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    directions = unit(features - features.mean(axis=0))
    means = unit(np.stack([directions[targets == k].mean(axis=0) for k in range(4)]))
    expected = unit(queries - features.mean(axis=0)) @ means.T
    np.testing.assert_allclose(head(torch.tensor(queries).float()).detach().numpy(), expected, atol=1e-5)


def test_images_far_out_count_as_much_as_others() -> None:
    head = NearestMeanHead(2, 2)
    far = torch.tensor([[100.0, 0.0], [0.0, 1.0], [-100.0, 0.0], [0.0, -1.0]])  # centered
    NCM().compute(head, far, torch.tensor([0, 0, 1, 1]))
    half = math.sqrt(0.5)
    torch.testing.assert_close(head.weight.data, torch.tensor([[half, half], [-half, -half]]))


def test_cosines_are_float32_under_autocast() -> None:
    head = nearest_mean(POINTS, torch.tensor([0, 0, 1]), 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(POINTS), head(POINTS.float())) and head(POINTS).dtype == torch.float32


def test_a_class_without_labeled_images_is_named() -> None:
    data: Any = SimpleNamespace(class_names=["ant", "bee", "cow"], class_counts=[3, 0, 1])
    with pytest.raises(ValueError, match="there is none of bee"):
        NCM().images(data)


@pytest.mark.parametrize("rule", [CRT(), LWS(), TauNorm(), NCM()], ids=lambda rule: type(rule).__name__)
def test_every_head_gives_logits_and_has_parameters(rule: NewHead) -> None:
    net = network()
    net.head = rule.build(net)
    assert net(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    assert any(p.requires_grad for p in net.head.parameters())  # several processes need one
