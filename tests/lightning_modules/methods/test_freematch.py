"""FreeMatch's fairness term by hand."""

import math

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules import FixMatch, FreeMatch
from tailmatch.lightning_modules.methods.freematch import corrected
from tailmatch.lightning_modules.weightings import CurriculumThresholds, SelfAdaptiveThresholds
from tests.lightning_modules.pixel_network import PixelNetwork, image


def freematch(**kwargs: float) -> FreeMatch:
    return FreeMatch(3, network=PixelNetwork, weighting=SelfAdaptiveThresholds(0.9), **kwargs)  # type: ignore[arg-type]


def after_a_step() -> FreeMatch:
    method = freematch()
    rows = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    assert method.weigh(rows, rows, torch.arange(2), None).tolist() == [1, 1]
    return method


def test_frequencies_of_zero_are_left_out() -> None:
    found = corrected(torch.tensor([0.34, 0.35, 0.31]), torch.tensor([0.35, 0.35, 0.3]))
    torch.testing.assert_close(found, torch.tensor([0.3233, 0.3328, 0.3439]), atol=5e-5, rtol=0)
    assert corrected(torch.tensor([0.4, 0.4, 0.2]), torch.tensor([0.5, 0.5, 0.0])).tolist() == [0.5, 0.5, 0]
    assert corrected(torch.zeros(3), torch.zeros(3)).tolist() == [0, 0, 0]


def test_the_term_of_the_selected_rows_and_its_gradient() -> None:
    method = after_a_step()
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]).log().requires_grad_()
    term = method.fairness(logits.softmax(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    assert term.item() == pytest.approx(-9.957, abs=1e-3)
    term.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad[2].tolist() == [0, 0, 0]

    def seen(values: Tensor) -> Tensor:
        """The part of the classes that are seen; that of the other one has no gradient."""
        s = values.softmax(dim=1)[:2].mean(dim=0)[:2]
        a = torch.tensor([0.34 / 0.35, 1.0, 0.31 / 0.3])
        return ((a / a.sum())[:2] * (s / s.sum()).log()).sum()

    again = logits.detach().clone().requires_grad_()
    part = seen(again)
    assert part.item() == pytest.approx(-0.4548, abs=1e-4)
    part.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits.grad, again.grad)


def test_nothing_selected_adds_nothing() -> None:
    logits = torch.randn(2, 3).requires_grad_()
    term = after_a_step().fairness(logits.softmax(dim=1), torch.zeros(2))
    term.backward()  # type: ignore[no-untyped-call]
    assert term.item() == 0 and logits.grad is not None and logits.grad.abs().sum() == 0


def test_the_loss_is_that_of_fixmatch_and_the_term() -> None:
    def step(method: FixMatch) -> tuple[Tensor, dict[str, Tensor]]:
        logged: dict[str, Tensor] = {}
        method.track = logged.update  # type: ignore[method-assign,assignment]
        views = torch.cat([image(0, 1, 0), image(2, 0, 0)])
        batch = {
            "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([0])},
            "unlabeled": {"weak": views, "strong": [views, views], "index": torch.tensor([0, 1])},
        }
        return method.training_step(batch, 0), logged

    plain, _ = step(FixMatch(3, network=PixelNetwork, strong_views=2, weighting=SelfAdaptiveThresholds(0.9)))
    loss, logged = step(freematch(lambda_fairness=0.5, strong_views=2))
    p = math.e / (math.e + 2)  # of class 1 in the first row
    r = math.e**2 / (math.e**2 + 2)  # of class 0 in the second
    prior = torch.tensor([(1 - p) / 2 + r, p + (1 - r) / 2, (1 - p) / 2 + (1 - r) / 2]) / 2
    a = (0.3 + 0.1 * prior) / torch.tensor([0.35, 0.35, 0.3])
    b = prior[:2] / prior[:2].sum()
    expected = ((a / a.sum()) * torch.cat([b, torch.zeros(1)]).add(1e-12).log()).sum()
    torch.testing.assert_close(logged["loss_fairness"], expected)
    torch.testing.assert_close(loss, plain + 0.5 * expected)


def test_another_weighting_is_refused() -> None:
    with pytest.raises(ValueError, match="weighting is CurriculumThresholds, and FreeMatch needs SelfAdaptive"):
        FreeMatch(3, network=PixelNetwork, weighting=CurriculumThresholds())
