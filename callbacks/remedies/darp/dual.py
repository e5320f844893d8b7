"""The dual of DARP's projection, and the damped Newton step on it: how the prices of all classes move at once.

`solver.py` says what is solved. This module has the rows and their totals at given prices, and the step, as functions
of vectors over the classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.rows import FLOOR, Reduce, Totals, blocks, scratch, to_logs

# Tuned on synthetic predictions (benchmarks/darp_solver.py and the random problems of the tests).
CURVATURE_CLASSES = 4  # the curvature is taken from one row in K / 4 ...
CURVATURE_ROWS = 64  # ... but from no fewer than so many rows per class
CROWD = 2.0  # how many times more uniform rows than it lacks a column may attract in one step
MORE_FALL = 0.7  # nats that a price may rise beyond what like rows ask for
SOFTMAX_CLASSES = 16  # of shorter rows, torch's softmax takes ten times as long as its parts on a processor


@dataclass(frozen=True)
class State:
    """Prices and the totals of the rows at them, over all ranks unless stated otherwise.

    Attributes:
        nu: `float64 [K]`, the smallest 0.
        totals: `float64 [K]`, column totals.
        contested: `float64 [K]`, sum_i y_ik (1 - y_ik): how much of a column a small move of its price touches.
        degrees: `float64 [K]`, sum_i H_i y_ik (1 - y_ik): the diagonal of the Laplacian.
        coupling: `float64 [K, K]`, sum_i H_i y_ik y_ij over some of this rank's rows, zero on the diagonal.
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


@dataclass(frozen=True)
class Problem:
    """Rows of one rank, with all that does not depend on the prices.

    Attributes:
        logs: `float32 [n, K]`, logarithms of the predictions.
        entropies: `float32 [n]`, in nats.
        target: `float64 [K]`, with the number of rows over all ranks as sum.
        share: this rank's share of the rows.
        diffuse: `float64 [1]`, entropy over all ranks as a number of uniform rows.
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

    @classmethod
    def of(cls, probs: Tensor, totals: Totals) -> "Problem":
        """Make the problem of predictions [n, K]; it overwrites them with their logarithms."""
        entropies = to_logs(probs)
        return cls._of_logs(probs, entropies, totals)

    @classmethod
    def _of_logs(cls, logs: Tensor, entropies: Tensor, totals: Totals) -> "Problem":
        target, reduce = totals.target, totals.reduce
        diffuse = reduce(entropies.sum(dtype=torch.float64)[None]) / uniform_entropy(target)
        # The K x K product would cost as much as K / 16 other operations. A part of the rows will do for it, since
        # `direction` scales it to the exact diagonal.
        part = max(1, min(len(target) // CURVATURE_CLASSES, len(logs) // (CURVATURE_ROWS * len(target))))
        return cls(logs, entropies, target, len(logs) / totals.rows, diffuse, part, reduce)

    def every(self, stride: int, rows: float) -> "Problem":
        """Make the problem of one row in `stride`, given the number of rows over all ranks."""
        logs = self.logs[::stride].contiguous()
        count = self.reduce(self.target.new_full((1,), len(logs))).item()
        totals = Totals(self.target * (count / rows), count, self.reduce)
        return self._of_logs(logs, self.entropies[::stride], totals)

    def at(self, nu: Tensor, band: Tensor) -> State:
        """Visit all rows once: column totals at prices [K], and the curvature of the dual.

        Args:
            nu: `[K]` prices; a shift of all changes nothing.
            band: `[K]` largest |total - target| that counts as close.
        """
        target, classes = self.target, len(self.target)
        nu = torch.where(target > 0, nu - torch.where(target > 0, nu, torch.inf).min(), 0.0)
        exponents = _exponents(nu, target)
        sums, coupling = nu.new_zeros((3, classes)), self.logs.new_zeros((classes, classes))
        samples: list[Tensor] = []
        spare = scratch(self.logs)
        for span, work in blocks(self.logs):
            nats = self.entropies[span]
            shares = _shares(self.logs[span], nats, exponents, work, out=spare[: len(work)])
            sums[0] += shares.sum(0)
            movable = torch.addcmul(shares, shares, shares, value=-1, out=work)
            sums[1] += movable.sum(0)
            sums[2] += nats @ movable
            samples.append(shares[:: self.part] * nats[:: self.part, None].sqrt())
            if len(samples) == self.part or span.stop == len(self.logs):  # one product for as much as a block
                sample = torch.cat(samples)
                coupling.addmm_(sample.t(), sample)
                samples.clear()
        totals, contested, degrees = self.reduce(sums)
        totals = totals * (target.sum() / totals.sum())  # the rounding of large columns must not move small ones
        gap = (totals - target).abs()
        distance, outside = torch.stack([gap.sum(), (gap > band).sum()]).tolist()
        return State(nu, totals, contested, degrees, coupling.double().fill_diagonal_(0), distance, outside == 0)

    def rows_at(self, nu: Tensor) -> Tensor:
        """Compute this rank's rows y [n, K] at prices [K]; it overwrites `logs`."""
        return rows_at(self.logs, self.entropies, nu, self.target)


def rows_at(logs: Tensor, entropies: Tensor, nu: Tensor, target: Tensor) -> Tensor:
    """Compute rows y [n, K] at prices, each row by itself; it overwrites `logs`.

    Args:
        logs: `float32 [n, K]`, logarithms of the predictions.
        entropies: `float32 [n]`, in nats.
        nu: `float64 [K]`, the prices.
        target: `float64 [K]`; columns of 0 are empty.
    """
    exponents = _exponents(nu, target)
    for span, work in blocks(logs):
        _shares(logs[span], entropies[span], exponents, work, out=logs[span])
    return logs


def _exponents(nu: Tensor, target: Tensor) -> Tensor:
    """Return -nu as float32, and a most negative number for columns that are to be empty."""
    return torch.where(target > 0, -nu, -1e30).float()


def _shares(logs: Tensor, entropies: Tensor, exponents: Tensor, work: Tensor, out: Tensor) -> Tensor:
    """Return y, the softmax of log p_ik - nu_k H_i: rows sum to 1. `out` may be `logs`, but not `work`."""
    logits = torch.addcmul(logs, entropies[:, None], exponents, out=work)
    if logits.shape[1] >= SOFTMAX_CLASSES:
        return torch.softmax(logits, dim=1, out=out)
    weights = torch.sub(logits, logits.amax(1, keepdim=True), out=out).exp_()
    return weights.div_(weights.sum(1, keepdim=True))


# The Newton step


def wanted_losses(problem: Problem, state: State) -> Tensor:
    """Compute how much each column should lose to first order, so that it reaches the target beyond first order.

    Newton's method takes (c - q) for it and is far off where the rows of a column are nearly decided: there
    the contested mass v changes by the exponential of a move. With x the fall in nats and v x the loss, the
    same as c - q to first order,

        c < q:  c + v (exp(-x) - 1) = q              what is contested grows
        c > q:  c = n y -> q with v = n y (1 - y)    the share y of n like rows falls, its logit by x

    Where rows differ much, those that are nearly decided stay behind: x is then up to `MORE_FALL` more, but no more
    than Newton's.

    With c - q in its place, 229 of the first 400 random problems of the tests (200 rows, 2 to 200 classes, one-hot to
    uniform predictions, priors of 1:1 to 1:1000) do not converge in 200 evaluations, and the others take twice as
    many at the median. With it all converge.

    Returns:
        `[K]` v x, positive where a column has too much.
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
    """Solve (Laplacian) step = losses on each rank, with the coupling of its own rows, and average the results.

    A mean of inverses of positive definite matrices is one too: the step is Newton's on one rank and close to
    it on several, if each has a fair sample of the rows. Adding the same amount to all prices changes nothing.
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
    """Add a step to prices, and limit it where a price would fall so low that uniform rows flock to the column.

    Uniform rows have the largest entropy and react first, and their reaction is known: their shares are a softmax. A
    column may attract somewhat more of them than it lacks.

    The limit is for warm starts, which nearly all refinements of a training are: after one row in twenty of the
    problems in `wanted_losses` has changed, the worst takes 43 evaluations instead of 159, and all together 1718
    instead of 2687. From a cold start they take 4569 instead of 4852 (with 3000 rows, on 100 problems, 1056 instead
    of 936).
    """
    nats = uniform_entropy(step)
    logits = torch.where(problem.target > 0, -nats * state.nu, -torch.inf)
    shares = logits.softmax(0)
    lacking = (problem.target - state.totals).clamp(min=0)
    most = CROWD * (shares + lacking / problem.diffuse.clamp(min=1e-12))
    lowest = shares @ step - (logits.logsumexp(0) + most.clamp(min=1e-30).log()) / nats
    return (state.nu + step).maximum(lowest)


def uniform_entropy(classes: Tensor) -> float:
    """Compute the entropy of a uniform row over the entries of a vector [K], in nats; that of at least two classes."""
    return math.log(max(2, len(classes)))
