"""DARP's solver: refine predictions to class totals, by pure computations on tensors.

Kim et al., "Distribution Aligning Refinery of Pseudo-label for Imbalanced Semi-supervised Learning", NeurIPS
2020, arXiv 2007.08844, and the authors' code, https://github.com/bbuing9/DARP (`common.py`:
`estimate_pseudo`, `opt_solver`; `training_functions.py`: the 1e-6 floor).

`Solver.solve` removes noise (`noise.py`), then projects. Given predictions p [N, K] and class totals q [K] with sum N,
the projection finds prices nu [K] such that

    y_ik = p_ik exp(-nu_k H_i) / sum_j p_ij exp(-nu_j H_i)        H_i the entropy of row i

has column totals q; its rows sum to 1 by construction. These are the optimality conditions of the
entropy-weighted KL projection  min_y sum_i KL(y_i | p_i) / H_i  subject to both sets of totals, whose dual

    g(nu) = -sum_i (1 / H_i) log sum_k p_ik exp(-nu_k H_i) - nu . q

is concave, with gradient (column totals - q) and, for Hessian, minus the Laplacian of the graph on the
classes with weights W_kj = sum_i H_i y_ik y_ij. The authors alternate row normalization and a scalar Newton
search per column, ten rounds of it; here all prices move at once, by damped Newton steps on the dual
(`dual.py`), to convergence.

Rows are visited in blocks: extra memory is the result and little more. On several devices each rank passes
its own rows and a `reduce` that sums a float64 tensor over the ranks, of shape [1], [K] or [m, K] with m of 30
at most: neither rows nor K x K matrices travel. Every rank takes the same decisions, from reduced values only.
Rows are float32 and K-vectors float64, which the device must support. The host waits for the device once in each
evaluation of the column totals, once for each block of rows in the removal of noise, and about a dozen times besides.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.dual import Problem, State, direction, moved, rows_at
from tailmatch.callbacks.remedies.darp.noise import Cuts, find_cuts, kept_rows
from tailmatch.callbacks.remedies.darp.rows import Reduce, Totals, to_logs
from tailmatch.datamodules.arguments import check_at_least, check_count, check_positive
from tailmatch.lightning_modules.training.distributed import sum_over_processes

ALPHA = 2.0  # bbuing9/DARP `arguments.py`
TOLERANCE = 1e-5
MAX_ITERATIONS = 200

# Tuned on synthetic predictions (benchmarks/darp_solver.py and the random problems of the tests).
COARSE_STRIDE = 8  # a cold start begins with one row in so many ...
COARSE_ROWS = 512  # ... where there are so many rows per class
COARSE_BUDGET = 20  # most evaluations of these rows
SLACK = 2.0  # how much further from the target a step may lead
ROUNDING = 1e-6  # float32 noise of the sum of |totals - target|, per row
MOST_HALVINGS = 20


@dataclass(frozen=True)
class Solution:
    """Rows with the requested class totals, and how they were reached.

    Attributes:
        rows: `float32 [N, K]`, each row sums to 1.
        nu: `float64 [K]`, the smallest 0 (a shift changes no row); pass it as `warm_start` next time. It has no
            meaning where the target is 0: those columns are empty, at no finite price.
        residual: largest |column total - target| as a share of its target (of one row, if the target is smaller).
        converged: whether the residual is within the solver's tolerance.
        iterations: evaluations of the column totals over all rows.
        prices: what makes the refinement one of single rows (see `refine_rows`). None: noise was not removed.
    """

    rows: Tensor
    nu: Tensor
    residual: float
    converged: bool
    iterations: int
    prices: "Prices | None" = None


@dataclass(frozen=True)
class Prices:
    """Vectors over the classes, with which DARP refines every row by itself.

    Attributes:
        cuts: What is kept of each class, and its scale.
        nu: `float64 [K]`, the prices of the projection.
        target: `float64 [K]`, the class totals, of which only the ratios matter here; classes of 0 get nothing.
    """

    cuts: Cuts
    nu: Tensor
    target: Tensor


def refine_rows(probs: Tensor, prices: Prices) -> Tensor:
    """Refine rows, each by itself: for the rows that gave the prices, the result is the solver's.

        t_k = [p_k >= threshold_k] p_k scale_k + 1e-6, normalized
        y_k = t_k exp(-nu_k H) / sum_j t_j exp(-nu_j H)                 H the entropy of t

    Args:
        probs: `float32 [N, K]`, any rows of the same network, which sum to 1.
        prices: The prices of these rows, or of a sample of them, as `Solution.prices`.

    Returns:
        `float32 [N, K]`, rows sum to 1.
    """
    rows = kept_rows(probs, prices.cuts)
    return rows_at(rows, to_logs(rows), prices.nu, prices.target)


class Solver:
    """Refines predictions to class totals.

    Args:
        alpha: The number of predictions that class k keeps, as a multiple of target_k; at least 1.
        tolerance: The largest accepted error of a class total, as a share of that total (of one row, if the total is
            smaller).
        max_iterations: The largest number of evaluations of the column totals.
        reduce: The sum over ranks.
    """

    def __init__(
        self,
        alpha: float = ALPHA,
        tolerance: float = TOLERANCE,
        max_iterations: int = MAX_ITERATIONS,
        reduce: Reduce = sum_over_processes,
    ) -> None:
        check_at_least("alpha", alpha, 1.0)
        check_positive("tolerance", tolerance)
        check_count("max_iterations", max_iterations)
        self.alpha = alpha
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.reduce = reduce

    def solve(self, probs: Tensor, target: Tensor, warm_start: Tensor | None = None) -> Solution:
        """Remove noise from predictions, then project them onto class totals.

        Args:
            probs: `float32 [N, K]`, rows sum to 1; this rank's rows. They are left as they are.
            target: `[K]` class totals, non-negative, with the number of rows over all ranks as sum.
            warm_start: `[K]`, the `nu` of an earlier solution.

        Raises:
            ValueError: shapes, type or totals do not fit.
        """
        totals = Totals.of(probs, target, self.reduce)
        cuts = find_cuts(probs, totals, self.alpha)
        solution = self._project_in_place(kept_rows(probs, cuts), totals, warm_start)
        return replace(solution, prices=Prices(cuts, solution.nu, totals.target))

    def project(self, probs: Tensor, target: Tensor, warm_start: Tensor | None = None) -> Solution:
        """Project predictions onto class totals (entropy-weighted KL). The arguments are those of `solve`.

        Positive predictions (those of `kept_rows` are) always have a solution. Zeros stay zeros and one-hot
        rows stay as they are, so that with those the totals may be out of reach: the result is then as close as
        the iteration came, `converged` is false, the rows still sum to 1.

        Raises:
            ValueError: shapes, type or totals do not fit.
        """
        return self._project_in_place(probs.clone(), Totals.of(probs, target, self.reduce), warm_start)

    def _project_in_place(self, probs: Tensor, totals: Totals, warm_start: Tensor | None) -> Solution:
        problem, target = Problem.of(probs, totals), totals.target
        if warm_start is not None:
            nu = warm_start.to(target)
        elif totals.rows >= COARSE_ROWS * len(target):
            nu = coarse_prices(problem, totals.rows)
        else:
            nu = torch.zeros_like(target)
        if nu.shape != target.shape:
            raise ValueError(f"warm_start must have shape {tuple(target.shape)}, not {tuple(nu.shape)}")
        state, iterations = find_prices(problem, nu, self.tolerance * target.clamp(min=1), self.max_iterations)
        residual = float(((state.totals - target).abs() / target.clamp(min=1)).max())
        return Solution(problem.rows_at(state.nu), state.nu, residual, state.close, iterations)


def coarse_prices(problem: Problem, rows: float) -> Tensor:
    """Find initial prices [K] from one row in `COARSE_STRIDE`, within half a standard error of a count."""
    coarse = problem.every(COARSE_STRIDE, rows)
    band = 0.5 * (1 + coarse.target).sqrt()
    state, _ = find_prices(coarse, torch.zeros_like(coarse.target), band, COARSE_BUDGET)
    return state.nu


def find_prices(problem: Problem, nu: Tensor, band: Tensor, budget: int) -> tuple[State, int]:
    """Find prices at which every column is within its band of the target; also count the evaluations.

    A step may lead to up to `slack` times the distance: from above a target Newton's way back is short, while
    from below it can be long. The slack shrinks as long as the distance sets no new low, which ends cycles.

    Args:
        problem: rows and target.
        nu: `[K]` prices to begin with.
        band: `[K]` largest |total - target|.
        budget: most evaluations.
    """
    state, used = problem.at(nu, band), 1
    best, slack, rounding = state.distance, SLACK, ROUNDING * float(problem.target.sum())
    while used < budget and not state.close:
        step = direction(problem, state)
        limit = slack * state.distance + rounding
        for halving in range(MOST_HALVINGS):
            trial = problem.at(moved(problem, state, step / 2**halving), band)
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
