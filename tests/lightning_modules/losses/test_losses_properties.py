"""What holds for every class count: weights, margins and adjustments by their formulas."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.lightning_modules.losses import (
    BalancedSoftmax,
    ClassWeights,
    EffectiveNumberWeights,
    InverseWeights,
    LogitAdjusted,
)
from tailmatch.lightning_modules.losses.ldam import ldam, ldam_margins
from tailmatch.lightning_modules.losses.logit_adjusted import log_prior

counts = st.lists(st.integers(1, 100_000), min_size=2, max_size=12).map(torch.tensor)
weights: st.SearchStrategy[ClassWeights] = st.one_of(
    st.builds(InverseWeights), st.builds(EffectiveNumberWeights, beta=st.floats(0, 0.99999))
)


def batch(classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.randn(6, classes, generator=generator), torch.randint(classes, (6,), generator=generator)


@given(weights, counts, st.randoms(use_true_random=False))
def test_class_weights_have_mean_one_and_rise_with_rarity_in_any_order(
    rule: ClassWeights, counts: Tensor, random: Any
) -> None:
    result = rule.weights(counts)
    assert result.dtype == torch.float32 and result.isfinite().all() and result.min() > 0
    torch.testing.assert_close(result.mean(), torch.tensor(1.0))
    order = counts.argsort(stable=True)
    assert (result[order].diff() <= 1e-6 * result.max()).all()
    shuffled = torch.tensor(random.sample(range(len(counts)), len(counts)))
    torch.testing.assert_close(rule.weights(counts[shuffled]), result[shuffled])


@given(counts)
def test_inverse_weights_give_every_class_the_same_total(counts: Tensor) -> None:
    totals = InverseWeights().weights(counts).double() * counts
    torch.testing.assert_close(totals, totals.mean().expand_as(totals), rtol=1e-5, atol=0)
    torch.testing.assert_close(EffectiveNumberWeights(0.0).weights(counts), torch.ones(len(counts)))


@given(counts, st.floats(0, 5), st.integers(1, 50))
def test_margins_are_the_largest_for_the_rarest_and_know_no_scale(counts: Tensor, most: float, factor: int) -> None:
    margins = ldam_margins(counts, most)
    torch.testing.assert_close(margins.max(), torch.tensor(most))
    constant = margins.double() * counts.double() ** 0.25
    torch.testing.assert_close(constant, constant.mean().expand_as(constant), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(ldam_margins(factor * counts, most), margins)


@given(counts, st.floats(0, 5), st.integers(0, 99))
def test_a_margin_only_adds_to_the_loss(counts: Tensor, most: float, seed: int) -> None:
    logits, target = batch(len(counts), seed)
    plain = functional.cross_entropy(logits, target, reduction="none")
    assert torch.equal(ldam(logits, target, torch.zeros(len(counts))), plain)
    result = ldam(logits, target, ldam_margins(counts, most))
    assert (result >= plain - 1e-6).all() and (result <= plain + most + 1e-5).all()


def adjusted(loss: LogitAdjusted, counts: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    loss.adapt(counts, nn.Identity())
    return loss


@given(counts, st.floats(0, 3), st.integers(0, 99))
def test_logit_adjustment_by_its_formula(counts: Tensor, tau: float, seed: int) -> None:
    logits, target = batch(len(counts), seed)
    plain = functional.cross_entropy(logits, target, reduction="none")
    same = torch.full_like(counts, 7)
    for loss in (adjusted(LogitAdjusted(0.0), counts), adjusted(LogitAdjusted(tau), same)):
        torch.testing.assert_close(loss(logits, target), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_prior(counts).double().exp().sum().item(), 1.0, rtol=1e-5, atol=0)
    weighted = counts.double() ** tau * logits.double().exp()
    expected = -(weighted.gather(1, target[:, None])[:, 0] / weighted.sum(1)).log()
    result = adjusted(LogitAdjusted(tau), counts)(logits, target)
    torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-4)
    if tau == 1:
        assert torch.equal(adjusted(BalancedSoftmax(), counts)(logits, target), result)


@given(counts, st.floats(0.1, 3), st.integers(0, 99))
def test_a_class_without_images_drops_out_of_logit_adjustment(counts: Tensor, tau: float, seed: int) -> None:
    logits, target = batch(len(counts), seed)
    more = torch.cat([counts, torch.tensor([0])])
    result = adjusted(LogitAdjusted(tau), more)(torch.cat([logits, torch.full((6, 1), 50.0)], dim=1), target)
    torch.testing.assert_close(result, adjusted(LogitAdjusted(tau), counts)(logits, target))
