"""The gate of `ExpertHead` by hand."""

import pytest
import torch
from torch import Tensor, nn

from tailmatch.lightning_modules.networks.expert_head import ExpertHead, mixed


class Constant(nn.Module):
    """A gate whose last linear layer gives fixed numbers."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = torch.tensor([numbers])

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.silu(self.numbers).expand(len(inputs), -1)


LOGITS = [torch.tensor([[3.0, 1, 0]]), torch.tensor([[1.5, 1.2, 0.6]]), torch.tensor([[0.5, 0.8, 1.6]])]


def test_weights_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    head = ExpertHead(nn.Linear(4, 3), 4, 3)
    head.groups.copy_(torch.eye(3))
    head.gate = Constant(1.0, -1.0, 0.5)  # type: ignore[assignment]
    gate, weights = head.weights(torch.zeros(1, 4), LOGITS)
    torch.testing.assert_close(gate, torch.tensor([[0.7311, -0.2689, 0.3112]]), atol=1e-4, rtol=0)
    inner = gate.softmax(dim=1)
    torch.testing.assert_close(inner, torch.tensor([[0.4938, 0.1817, 0.3245]]), atol=1e-4, rtol=0)
    confidence = torch.tensor([[0.8438, 0.3450, 0.5611]])  # of the class of each head
    torch.testing.assert_close(weights, (inner * confidence).softmax(dim=1), atol=1e-4, rtol=0)
    assert 0.1554 < weights.min() and weights.max() < 0.5761


def test_mixtures_by_hand() -> None:
    weights = (torch.tensor([[0.4938, 0.1817, 0.3245]]) * torch.tensor([[0.9, 0.2, 0.5]])).softmax(dim=1)
    torch.testing.assert_close(weights, torch.tensor([[0.4134, 0.2749, 0.3118]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(mixed(weights, LOGITS), torch.tensor([[1.8083, 0.9926, 0.6637]]), atol=3e-4, rtol=0)
    shift = torch.tensor([0.7, 0.2, 0.1]).log()
    adjusted = [z + tau * shift for z, tau in zip(LOGITS, (0, 2, 4), strict=True)]
    torch.testing.assert_close(adjusted[1], torch.tensor([[0.7867, -2.0189, -4.0052]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(adjusted[2], torch.tensor([[-0.9267, -5.6378, -7.6103]]), atol=1e-4, rtol=0)
    found = mixed(weights, adjusted).softmax(dim=1)
    torch.testing.assert_close(found, torch.tensor([[0.9468, 0.0441, 0.0091]]), atol=2e-4, rtol=0)


def test_the_gate_reads_features_and_adjusted_predictions() -> None:
    head = ExpertHead(nn.Linear(4, 3), 4, 3)
    head.shifts.copy_(torch.tensor([[0.0, 0, 0], [1, 2, 3], [4, 5, 7]]))
    read: list[Tensor] = []
    head.gate.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    features = torch.rand(1, 4)
    head.weights(features, LOGITS)
    expected = [features, *((z + s).softmax(dim=1) for z, s in zip(LOGITS, head.shifts, strict=True))]
    torch.testing.assert_close(read[0], torch.cat(expected, dim=1))
    assert [layer.out_features for layer in head.gate if isinstance(layer, nn.Linear)] == [128, 64, 3]
    assert isinstance(head.gate[-1], nn.SiLU)
