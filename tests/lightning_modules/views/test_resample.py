import pytest
import torch

from tailmatch.lightning_modules.views import base
from tailmatch.lightning_modules.views.resample import Taps, fixed_point, resample


def taps(matrix):
    """Taps that sum up all positions with the weights of ``[B, N, M]``."""
    position = torch.arange(matrix.shape[2], dtype=torch.int32).expand(matrix.shape)
    return Taps(position, fixed_point(matrix.to(torch.float64)))


def test_worked_by_hand():
    image = torch.tensor([[0, 100, 201], [50, 60, 255]], dtype=torch.uint8).expand(1, 3, 2, 3)
    columns = taps(torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]]))
    rows = taps(torch.tensor([[[0.75, 0.25]]]))
    # Columns: 50 and 175.75 -> 176; 55 and 206.25 -> 206. Rows: 51.25 -> 51 and 183.5 -> 184.
    assert resample(image, rows, columns).tolist() == [[[[51, 184]]] * 3]


@pytest.mark.parametrize("outputs", [1, 7])
def test_equals_whole_number_matrices(outputs):
    """Integer arithmetic has no rounding but the one that is meant: every sum in float32 is exact."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (5, 3, 9, 12), dtype=torch.uint8, generator=generator)
    rows, columns = (
        torch.rand(5, outputs, side, dtype=torch.float64, generator=generator) ** 4 for side in images.shape[2:]
    )
    rows, columns = taps(rows / rows.sum(2, keepdim=True)), taps(columns / columns.sum(2, keepdim=True))

    result = resample(images, rows, columns)

    one = 2**16
    whole = [(part.weight.to(torch.float64) * one).to(torch.int64) for part in (rows, columns)]
    across = (torch.einsum("bchw,bnw->bchn", images.to(torch.int64), whole[1]) + one // 2) // one
    expected = (torch.einsum("bchw,bnh->bcnw", across.clamp(max=255), whole[0]) + one // 2) // one
    assert torch.equal(result, expected.clamp(max=255).to(torch.uint8))


@pytest.mark.parametrize(("largest", "bits"), [(1.0, 14), (0.999, 15), (0.5, 15), (0.499, 16), (0.01, 16)])
def test_fixed_point_keeps_weights_below_two_to_the_fifteenth(largest, bits):
    weight = torch.tensor([[[largest, (1 - largest) / 3]]], dtype=torch.float64)
    scaled = fixed_point(weight).to(torch.float64) * 2**bits
    assert torch.equal(scaled, scaled.round())
    assert scaled[0, 0, 0] < 2**15
    torch.testing.assert_close(scaled / 2**bits, weight, rtol=0, atol=0.5 / 2**bits)


def test_parts_change_nothing(batch, monkeypatch):
    matrix = torch.rand(64, 20, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = taps(matrix / matrix.sum(2, keepdim=True))
    whole = resample(batch, weights, weights)
    monkeypatch.setattr(base, "PART", 5 * batch[0].numel())
    assert torch.equal(resample(batch, weights, weights), whole)
    monkeypatch.setattr(base, "PART", 1)
    assert torch.equal(resample(batch, weights, weights), whole)
