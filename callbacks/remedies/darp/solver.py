"""DARP's refinement of a matrix of predictions, as pure functions of tensors.

Kim et al., "Distribution Aligning Refinery of Pseudo-label for Imbalanced Semi-supervised Learning", NeurIPS
2020, arXiv 2007.08844, and the authors' code, https://github.com/bbuing9/DARP (`common.py`:
`estimate_pseudo`, `opt_solver`; `training_functions.py`: the 1e-6 floor).

`refine` = `remove_noise` then `project`. Given predictions p [N, K] and class totals q [K] with sum N,
`project` finds prices nu [K] such that

    y_ik = p_ik exp(-nu_k H_i) / sum_j p_ij exp(-nu_j H_i)        H_i the entropy of row i

has column totals q; its rows sum to 1 by construction. These are the optimality conditions of the
entropy-weighted KL projection  min_y sum_i KL(y_i | p_i) / H_i  subject to both sets of totals, whose dual

    g(nu) = -sum_i (1 / H_i) log sum_k p_ik exp(-nu_k H_i) - nu . q

is concave, with gradient (column totals - q) and, for Hessian, minus the Laplacian of the graph on the
classes with weights W_kj = sum_i H_i y_ik y_ij. The authors alternate row normalization and a scalar Newton
search per column, ten rounds of it; here all prices move at once, by damped Newton steps on the dual
(`darp_newton.py`), to convergence.

Rows are visited in blocks: extra memory is the result and little more. On several devices each rank passes
its own rows and a `reduce` that sums a float64 tensor over the ranks, of shape [1], [K] or [m, K] with m of 30
at most: neither rows nor K x K matrices travel. Every rank takes the same decisions, from reduced values only.
Rows are float32 and K-vectors float64, which the device must support. The host waits for the device once in each
evaluation of the column totals, once for each block of rows in the removal of noise, and about a dozen times besides.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.newton import Problem, State, direction, moved, uniform_entropy
from tailmatch.callbacks.remedies.darp.noise import remove_noise
from tailmatch.callbacks.remedies.darp.rows import Reduce, blocks, checked, identity, scratch, to_logs

# Tuned on synthetic predictions (benchmarks/darp_solver.py and the random problems of the tests).
CURVATURE_CLASSES = 4  # the curvature is taken from one row in K / 4 ...
CURVATURE_ROWS = 64  # ... but from no fewer than so many rows per class
COARSE_STRIDE = 8  # a cold start begins with one row in so many ...
COARSE_ROWS = 512  # ... where there are so many rows per class
COARSE_BUDGET = 20  # most evaluations of these rows
SLACK = 2.0  # how much further from the target a step may lead
SOFTMAX_CLASSES = 16  # of shorter rows, torch's softmax takes ten times as long as its parts on a processor
ROUNDING = 1e-6  # float32 noise of the sum of |totals - target|, per row
MOST_HALVINGS = 20


@dataclass(frozen=True)
class Refinement:
    """Refined predictions and how they were reached.

    Attributes:
        rows: [N, K], float32, each row sums to 1.
        nu: [K], float64, the smallest 0 (a shift changes no row); pass it as `warm_start` next time. Without
            meaning where the target is 0: those columns are empty, at no finite price.
        residual: largest |column total - target| as a share of all rows.
        converged: whether `residual` is at most the tolerance.
        iterations: evaluations of the column totals over all rows.
    """

    rows: Tensor
    nu: Tensor
    residual: float
    converged: bool
    iterations: int


def refine(
    probs: Tensor,
    target: Tensor,
    *,
    alpha: float,
    warm_start: Tensor | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 200,
    reduce: Reduce = identity,
) -> Refinement:
    """Remove noise from predictions, then project them onto class totals.

    Args:
        probs: [N, K] float32, rows sum to 1; this rank's rows.
        target: [K] class totals, non-negative, with the number of rows over all ranks as sum.
        alpha: class k keeps its top int(alpha * target_k) predictions.
        warm_start: [K], the `nu` of an earlier result.
        tolerance: see `project`.
        max_iterations: see `project`.
        reduce: sum over ranks.

    Returns:
        The refined rows; `probs` is left as it was.

    Raises:
        ValueError: shapes, type or totals do not fit.
    """
    rows = remove_noise(probs, target, alpha, reduce=reduce)
    return _project_in_place(rows, target, warm_start, tolerance, max_iterations, reduce)


def project(
    probs: Tensor,
    target: Tensor,
    *,
    warm_start: Tensor | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 200,
    reduce: Reduce = identity,
) -> Refinement:
    """Entropy-weighted KL projection of predictions onto class totals.

    Positive predictions (those of `remove_noise` are) always have a solution. Zeros stay zeros and one-hot
    rows stay as they are, so that with those the totals may be out of reach: the result is then as close as
    the iteration came, `converged` is false, the rows still sum to 1.

    Args:
        probs: [N, K] float32, rows sum to 1; this rank's rows.
        target: [K] class totals, non-negative, with the number of rows over all ranks as sum.
        warm_start: [K], the `nu` of an earlier result.
        tolerance: the iteration ends when every column is within tolerance * max(target_k, 1) of its target.
        max_iterations: most evaluations of the column totals.
        reduce: sum over ranks.

    Returns:
        The projected rows; `probs` is left as it was.

    Raises:
        ValueError: shapes, type or totals do not fit.
    """
    return _project_in_place(probs.clone(), target, warm_start, tolerance, max_iterations, reduce)


def _project_in_place(
    rows: Tensor,
    target: Tensor,
    warm_start: Tensor | None,
    tolerance: float,
    max_iterations: int,
    reduce: Reduce,
) -> Refinement:
    total, target = checked(rows, target, reduce)
    nats = to_logs(rows)
    problem = _problem(rows, nats, target, total, reduce)
    if warm_start is not None:
        nu = warm_start.to(target)
    elif total >= COARSE_ROWS * len(target):
        nu = _coarse_prices(problem, total)
    else:
        nu = torch.zeros_like(target)
    if nu.shape != target.shape:
        raise ValueError(f"warm_start must have shape {tuple(target.shape)}, not {tuple(nu.shape)}")
    state, iterations = _solve(problem, nu, tolerance * target.clamp(min=1), max_iterations)
    exponents = _exponents(state.nu, target)
    for span, work in blocks(rows):
        _shares(rows[span], nats[span], exponents, work, out=rows[span])
    residual = float((state.totals - target).abs().max()) / total
    return Refinement(rows, state.nu, residual, residual <= tolerance, iterations)


def _problem(logs: Tensor, nats: Tensor, target: Tensor, total: float, reduce: Reduce) -> Problem:
    diffuse = reduce(nats.sum(dtype=torch.float64)[None]) / uniform_entropy(target)
    # The K x K product would cost as much as K / 16 other operations. A part of the rows will do for it, since
    # `direction` scales it to the exact diagonal.
    part = max(1, min(len(target) // CURVATURE_CLASSES, len(logs) // (CURVATURE_ROWS * len(target))))
    return Problem(logs, nats, target, len(logs) / total, diffuse, part, reduce)


def _coarse_prices(problem: Problem, total: float) -> Tensor:
    """Prices for one row in `COARSE_STRIDE`, to begin with: within half a standard error of a count."""
    logs = problem.logs[::COARSE_STRIDE].contiguous()
    count = problem.reduce(problem.target.new_full((1,), len(logs))).item()
    target = problem.target * (count / total)
    coarse = _problem(logs, problem.entropies[::COARSE_STRIDE], target, count, problem.reduce)
    state, _ = _solve(coarse, torch.zeros_like(target), 0.5 * (1 + target).sqrt(), COARSE_BUDGET)
    return state.nu


def _solve(problem: Problem, nu: Tensor, band: Tensor, budget: int) -> tuple[State, int]:
    """Find prices at which every column is within its band of the target; also count the evaluations.

    A step may lead to up to `slack` times the distance: from above a target Newton's way back is short, while
    from below it can be long. The slack shrinks as long as the distance sets no new low, which ends cycles.
    """
    state, used = _evaluate(problem, nu, band), 1
    best, slack, rounding = state.distance, SLACK, ROUNDING * float(problem.target.sum())
    while used < budget and not state.close:
        step = direction(problem, state)
        limit = slack * state.distance + rounding
        for halving in range(MOST_HALVINGS):
            trial = _evaluate(problem, moved(problem, state, step / 2**halving), band)
            used += 1
            if trial.distance <= limit or used >= budget:
                break
        stands = trial.distance == state.distance and not bool(step.any())  # a step of zeros leads nowhere
        if stands or not trial.distance <= limit:
            break
        state = trial
        slack = SLACK if state.distance < best else (1 + slack) / 2
        best = min(best, state.distance)
    return state, used


def _evaluate(problem: Problem, nu: Tensor, band: Tensor) -> State:
    """Visit all rows once: column totals, and the curvature of the dual."""
    target, classes = problem.target, len(problem.target)
    nu = torch.where(target > 0, nu - torch.where(target > 0, nu, torch.inf).min(), 0.0)
    exponents = _exponents(nu, target)
    sums, coupling = nu.new_zeros((3, classes)), problem.logs.new_zeros((classes, classes))
    samples: list[Tensor] = []
    spare = scratch(problem.logs)
    for span, work in blocks(problem.logs):
        nats = problem.entropies[span]
        shares = _shares(problem.logs[span], nats, exponents, work, out=spare[: len(work)])
        sums[0] += shares.sum(0)
        movable = torch.addcmul(shares, shares, shares, value=-1, out=work)
        sums[1] += movable.sum(0)
        sums[2] += nats @ movable
        samples.append(shares[:: problem.part] * nats[:: problem.part, None].sqrt())
        if len(samples) == problem.part or span.stop == len(problem.logs):  # one product for as much as a block
            sample = torch.cat(samples)
            coupling.addmm_(sample.t(), sample)
            samples.clear()
    totals, contested, degrees = problem.reduce(sums)
    totals = totals * (target.sum() / totals.sum())  # the rounding of large columns must not move small ones
    gap = (totals - target).abs()
    distance, outside = torch.stack([gap.sum(), (gap > band).sum()]).tolist()
    return State(nu, totals, contested, degrees, coupling.double().fill_diagonal_(0), distance, outside == 0)


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
