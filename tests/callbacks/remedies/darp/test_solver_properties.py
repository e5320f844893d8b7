"""What holds for DARP's solution of every problem, however extreme the prior."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tailmatch.callbacks.remedies.darp.solver import Solver

SOLVER = Solver()
Problem = tuple[Tensor, Tensor]


@st.composite
def problems(draw: Callable[[Any], Any], smallest: float = 1e-6) -> Problem:
    """Draw predictions `[N, K]`, uniform to one-hot, and class totals, some of which may be 0 or next to it."""
    rows, classes = draw(st.integers(1, 60)), draw(st.integers(2, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**40)))
    sharpness, bias = draw(st.sampled_from([0.0, 0.5, 3.0, 20.0])), torch.randn(classes, generator=generator)
    probs = (sharpness * (torch.randn(rows, classes, generator=generator) + bias)).softmax(dim=1)
    entry = st.one_of(st.floats(smallest, 1), st.just(1.0), *([st.just(0.0)] if smallest < 1e-3 else []))
    prior = draw(st.lists(entry, min_size=classes, max_size=classes).filter(any))
    target = torch.tensor(prior, dtype=torch.float64)
    return probs, target * (rows / target.sum())


@given(problems())
def test_every_row_is_a_distribution_and_every_column_has_its_total(problem: Problem) -> None:
    probs, target = problem
    given_probs = probs.clone()
    result = SOLVER.solve(probs, target)
    assert torch.equal(probs, given_probs)
    assert result.rows.dtype == torch.float32 and result.rows.isfinite().all() and result.rows.min() >= 0
    torch.testing.assert_close(result.rows.sum(1), torch.ones(len(probs)))
    assert result.converged
    assert (result.rows.double().sum(0) - target).abs().max() <= 1e-4 * len(probs)
    assert result.nu.isfinite().all() and result.nu.min() == 0


@given(problems(smallest=0.01))
def test_a_solution_that_is_projected_again_stays(problem: Problem) -> None:
    probs, target = problem
    once = SOLVER.solve(probs, target)
    again = SOLVER.project(once.rows, target)
    torch.testing.assert_close(again.rows, once.rows, rtol=0, atol=1e-3)
    warm = SOLVER.solve(probs, target, once.nu)
    assert warm.iterations <= 2
    torch.testing.assert_close(warm.rows, once.rows, rtol=0, atol=1e-3)


@given(problems(smallest=0.01), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_of_classes_does_not_matter(problem: Problem, random: Any) -> None:
    probs, target = problem
    rows, classes = (torch.tensor(random.sample(range(n), n)) for n in probs.shape)
    result = SOLVER.solve(probs, target).rows
    other = SOLVER.solve(probs[rows][:, classes], target[classes]).rows
    torch.testing.assert_close(other, result[rows][:, classes], rtol=0, atol=1e-3)


@given(problems())
def test_totals_that_are_met_change_nothing(problem: Problem) -> None:
    probs, _ = problem
    result = SOLVER.project(probs, probs.double().sum(0))
    torch.testing.assert_close(result.rows, probs, rtol=0, atol=1e-5)
