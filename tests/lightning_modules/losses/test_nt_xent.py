"""NT-Xent worked by hand, against SimCLR's form, and over processes."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.lightning_modules.losses import nt_xent


def simclr(views: Tensor, temperature: float) -> Tensor:
    """Equation 1 of arXiv 2002.05709, pair by pair: `views [2, B, D]`."""
    rows = views.flatten(0, 1)
    count = len(rows)
    losses = []
    for i in range(count):
        j = (i + count // 2) % count
        similar = [functional.cosine_similarity(rows[i], rows[k], dim=0) / temperature for k in range(count)]
        others = torch.stack([similar[k] for k in range(count) if k != i])
        losses.append(-similar[j] + others.logsumexp(0))
    return torch.stack(losses).mean()


def test_two_views_are_simclr() -> None:
    views = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    assert nt_xent(views, 0.3).item() == pytest.approx(simclr(views, 0.3).item(), rel=1e-5)


def test_three_views_by_hand() -> None:
    # Two images; views of image 0 point along x, those of image 1 along y, but for one view at 45 degrees.
    # Lengths don't matter. Temperature 1, c = cos 45 degrees.
    views = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 1.0]]])
    c, e = math.sqrt(0.5), math.e
    image0 = math.log(e + math.exp(c) + 3)  # of a view along x: its siblings e, e^c; the other image 3 e^0
    along_x = (2 * image0 - 1 - c) / 2
    slanted = math.log(5 * math.exp(c)) - c  # to all five others c
    image1 = math.log(2 * e + 2 + math.exp(c)) - 1  # of a view along y: siblings e, e; others e^0, e^0, e^c
    assert nt_xent(views, 1.0).item() == pytest.approx((2 * along_x + slanted + 3 * image1) / 6, rel=1e-5)


def test_each_process_contrasts_its_views_with_those_of_all() -> None:
    everything = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    together = everything.transpose(0, 1).flatten(1, 2)  # [K, W B, D]: the images of both processes side by side
    parts = [nt_xent(everything[process], 0.2, everything, process) for process in range(2)]
    assert torch.stack(parts).mean().item() == pytest.approx(nt_xent(together, 0.2).item(), rel=1e-9)


def test_gradient_is_that_of_the_whole_and_finite() -> None:
    views = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: nt_xent(v, 0.5), (views,))
