"""A step of DARP's solver: how the prices of all classes move at once.

`solver.py` says what is solved; here are the state of its search and the damped Newton step on the dual, as functions
of vectors over the classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.rows import FLOOR, Reduce

# Tuned on synthetic predictions (benchmarks/darp_solver.py and the random problems of the tests).
CROWD = 2.0  # how many times more uniform rows than it lacks a column may attract in one step
MORE_FALL = 0.7  # nats that a price may rise beyond what like rows ask for


@dataclass(frozen=True)
class Problem:
    """Rows of one rank, with what does not change while prices are sought.

    Attributes:
        logs: [n, K] float32, logarithms of the predictions.
        entropies: [n] float32, in nats.
        target: [K] float64, with the number of rows over all ranks as sum.
        share: this rank's share of the rows.
        diffuse: [1] float64, entropy over all ranks as a number of uniform rows.
        part: one row in so many tells the curvature.
        reduce: sum over ranks.
    """

    logs: Tensor
    entropies: Tensor
    target: Tensor
    share: float
    diffuse: Tensor
    part: int
    reduce: Reduce


@dataclass(frozen=True)
class State:
    """Prices and what the rows do at them; over all ranks if not said otherwise.

    Attributes:
        nu: [K] float64, the smallest 0.
        totals: [K] float64, column totals.
        contested: [K] float64, sum_i y_ik (1 - y_ik): how much of a column a small move of its price touches.
        degrees: [K] float64, sum_i H_i y_ik (1 - y_ik): the diagonal of the Laplacian.
        coupling: [K, K] float64, sum_i H_i y_ik y_ij over some of this rank's rows, zero on the diagonal.
        distance: sum of |totals - target|.
        close: whether every column is within its band of the target.
    """

    nu: Tensor
    totals: Tensor
    contested: Tensor
    degrees: Tensor
    coupling: Tensor
    distance: float
    close: bool


def wanted_losses(problem: Problem, state: State) -> Tensor:
    """How much each column should lose to first order such that it arrives at the target beyond first order.

    Newton's method takes (c - q) for it and is far off where the rows of a column are nearly decided: there
    the contested mass v changes by the exponential of a move. With x the fall in nats and v x the loss, the
    same as c - q to first order,

        c < q:  c + v (exp(-x) - 1) = q              what is contested grows
        c > q:  c = n y -> q with v = n y (1 - y)    the share y of n like rows falls, its logit by x

    Where rows differ much, those that are nearly decided stay behind: x is then up to `MORE_FALL` more, but no more
    than Newton's.

    Returns:
        [K] v x, positive where a column has too much.
    """
    have, target = state.totals.clamp(min=1e-30), problem.target
    contested = torch.minimum(state.contested, have * (1 - 1e-9)).maximum(have * 1e-12)
    rise = torch.log1p((target - have).clamp(min=0) / contested)
    rows = have.square() / (have - contested)
    wanted = target.clamp(min=FLOOR)
    fall = ((have - contested) / contested).log() + ((rows - wanted).clamp(min=FLOOR) / wanted).log()
    fall = torch.maximum(fall, torch.minimum((have - target) / contested, fall + MORE_FALL))
    return contested * torch.where(have > target, fall, -rise)


def direction(problem: Problem, state: State) -> Tensor:
    """Solve (Laplacian) step = losses; each rank with its own rows' coupling, and the mean of the results.

    A mean of inverses of positive definite matrices is one too: the step is Newton's on one rank and close to
    it on several, if each has a fair sample of the rows. The same amount on all prices is of no account.
    """
    coupling = state.coupling
    if problem.part > 1 or problem.share < 1:
        coupling = _with_row_sums(coupling, state.degrees)
    degrees = coupling.sum(1)
    degrees = torch.where(degrees > 0, degrees, state.degrees)
    alive = (degrees > 0) & (problem.target > 0)
    scale = torch.where(alive, degrees.clamp(min=1e-300).rsqrt(), 0.0)
    kernel = torch.where(alive, degrees, 0.0).sqrt()
    kernel = kernel / kernel.norm().clamp(min=1e-300)
    system = torch.diag(degrees * scale.square() + 1e-12) - coupling * scale[:, None] * scale
    losses = wanted_losses(problem, state) * scale
    losses = losses - kernel * (kernel @ losses)
    factor = torch.linalg.cholesky_ex(system + torch.outer(kernel, kernel)).L
    step = scale * torch.cholesky_solve(losses[:, None], factor)[:, 0]
    return problem.reduce(problem.share * step)


def _with_row_sums(matrix: Tensor, sums: Tensor) -> Tensor:
    """Scale rows and columns of a symmetric matrix alike until its row sums are close to those given."""
    factor = torch.ones_like(sums)
    for _ in range(10):
        factor = (factor * sums / (matrix @ factor).clamp(min=1e-100)).sqrt()
    return matrix * factor[:, None] * factor


def moved(problem: Problem, state: State, step: Tensor) -> Tensor:
    """Add a step to prices, less of it where a price would fall so low that uniform rows flock to the column.

    As they have most entropy they are the first to do so, and what they will do is known: their shares are a
    softmax. A column may attract some more of them than it lacks.
    """
    nats = uniform_entropy(step)
    logits = torch.where(problem.target > 0, -nats * state.nu, -torch.inf)
    shares = logits.softmax(0)
    lacking = (problem.target - state.totals).clamp(min=0)
    most = CROWD * (shares + lacking / problem.diffuse.clamp(min=1e-12))
    lowest = shares @ step - (logits.logsumexp(0) + most.clamp(min=1e-30).log()) / nats
    return (state.nu + step).maximum(lowest)


def uniform_entropy(classes: Tensor) -> float:
    """Entropy of a uniform row over the entries of a vector `[K]`, in nats; that of two classes at least."""
    return math.log(max(2, len(classes)))
