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
search per column, ten rounds of it; here all prices move at once, by damped Newton steps on the dual, to
convergence.

Rows are visited in blocks: extra memory is the result and little more. On several devices each rank passes
its own rows and a `reduce` that sums a float64 tensor over the ranks, of shape [1], [K] or [m, K] with m of 15
at most: neither rows nor K x K matrices travel. Every rank takes the same decisions, from reduced values only.
Rows are float32 and K-vectors float64, which the device must support. The host waits for the device about once
per evaluation of the column totals.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]

FLOOR = 1e-6  # added to kept predictions and to both sides of the column scale by the authors' code
TINY = 1e-37  # a normal float32 next to zero
LOWEST_EXPONENT = -80.0  # exp(-80) = 2e-35: as good as zero beside 1, and a normal float32
INFINITY_BITS = 0x7F800000  # float32 infinity: the bits of non-negative floats are ordered like the floats

# Tuned on synthetic predictions (benchmarks/darp_solver.py and the random problems of the tests).
SAMPLE_ROWS = 4096  # rows whose quantiles bracket the column thresholds
CURVATURE_CLASSES = 16  # above so many classes, the curvature is taken from one row in K / 16 ...
CURVATURE_ROWS = 32  # ... but from no fewer than so many rows per class
SLACK = 2.0  # how much further from the target a step may lead
CROWD = 2.0  # how many times more uniform rows than it lacks a column may attract in one step
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
        iterations: evaluations of the column totals.
    """

    rows: Tensor
    nu: Tensor
    residual: float
    converged: bool
    iterations: int


def identity(value: Tensor) -> Tensor:
    """Sum over ranks where there is one."""
    return value


def refine(
    probs: Tensor,
    target: Tensor,
    *,
    alpha: float,
    warm_start: Tensor | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 100,
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
    max_iterations: int = 100,
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


def remove_noise(probs: Tensor, target: Tensor, alpha: float, *, reduce: Reduce = identity) -> Tensor:
    """Keep each class's most confident predictions, scaled to the class total.

        kept_k  = the top int(alpha q_k) entries of column k
        t_ik    = p_ik (q_k + 1e-6) / (sum(kept_k) + 1e-6) + 1e-6 if kept, else 1e-6
        result  = t_ik / sum_j t_ij

    Of entries tied at the threshold the authors keep those that their sort happens to put first. Here each is
    kept in the same proportion, such that the kept sum is the authors': the mean of t over the orders of the
    tied, and the same for any order of the rows and any number of ranks.

    Args:
        probs: [N, K] float32, non-negative; this rank's rows.
        target: [K] class totals q, with the number of rows over all ranks as sum.
        alpha: share of its total that a class keeps, positive.
        reduce: sum over ranks.

    Returns:
        [N, K] float32, positive, rows sum to 1.

    Raises:
        ValueError: shapes, type or totals do not fit.
    """
    total, target = _checked(probs, target, reduce)
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, not {alpha}")
    kept = (alpha * target).floor().clamp(max=total)
    threshold, share, excess = column_thresholds(probs, kept, reduce=reduce)
    threshold, ties = threshold.float(), bool((share < 1).any())

    sums = torch.zeros_like(target)
    for span, work in _blocks(probs):
        sums += torch.ge(probs[span], threshold, out=work).mul_(probs[span]).sum(0)
    scale = (target + FLOOR) / (reduce(sums) - excess * threshold + FLOOR)
    scale, cut = scale.float(), ((share - 1) * threshold).float()

    result = torch.empty_like(probs)
    for span, work in _blocks(probs):
        out = torch.ge(probs[span], threshold, out=result[span]).mul_(probs[span])
        if ties:
            out.addcmul_(torch.eq(probs[span], threshold, out=work), cut)
        out.mul_(scale).add_(FLOOR)
        out.div_(out.sum(1, keepdim=True))
    return result


def entropies(probs: Tensor) -> Tensor:
    """Row entropies, H_i = -sum_k p_ik log p_ik.

    The authors' code has log(p_ik + 1e-6), which makes the entropy of rows with an entry beyond 1 - 1e-6
    negative. Without it every problem with positive predictions is convex and has exactly one solution.

    An entry above one half counts as one minus the others of its row: rounded to float32 it would leave the
    entropy of a nearly one-hot row, 1e-5 or so, few digits.

    Args:
        probs: [N, K] float32, rows sum to 1.

    Returns:
        [N], in nats.
    """
    result = probs.new_empty(len(probs))
    for span, work in _blocks(probs):
        minor = torch.le(probs[span], 0.5, out=work).mul_(probs[span])
        rest = minor.sum(1).clamp_(max=1)
        entropy = -minor.clamp(min=TINY).log_().mul_(minor).sum(1)
        result[span] = entropy - (1 - rest) * torch.log1p(-rest.clamp(max=0.9))
    return result


def _checked(probs: Tensor, target: Tensor, reduce: Reduce) -> tuple[float, Tensor]:
    """Check shapes and totals; return the number of rows over all ranks and the target as float64."""
    if probs.ndim != 2 or probs.dtype != torch.float32:
        raise ValueError(f"probs must be a float32 matrix, not {probs.dtype} of shape {tuple(probs.shape)}")
    if target.shape != probs.shape[1:]:
        raise ValueError(f"target must have shape ({probs.shape[1]},), not {tuple(target.shape)}")
    target = target.detach().to(probs.device, torch.float64)
    total = reduce(target.new_tensor([len(probs)])).item()
    if not bool((target >= 0).all()):
        raise ValueError(f"target must have no negative entry, not {target.tolist()}")
    if total == 0 or abs(target.sum().item() - total) > 1e-3 * total:
        raise ValueError(f"target must sum to the number of rows, {total:.0f}, not {target.sum().item()}")
    return total, target * (total / target.sum())


def _blocks(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield spans of successive rows, each with scratch memory of its shape that all share."""
    # On a processor 8 MiB stay in the cache, and threads seldom enough wait for each other; kernels want more.
    elements = 1 << 21 if rows.device.type == "cpu" else 1 << 26
    height = max(1, min(len(rows), elements // max(1, rows.shape[1])))
    work = rows.new_empty((height, rows.shape[1]))
    for start in range(0, len(rows), height):
        stop = min(start + height, len(rows))
        yield slice(start, stop), work[: stop - start]


# Column thresholds


@dataclass(frozen=True)
class _Bracket:
    """Bits of the m-th largest entry of each column, from below (inclusive) and above (exclusive), all [K].

    Attributes:
        low: bits, int64, with at least `wanted` entries at or above.
        high: bits, int64, with fewer.
        above_low: number of entries at or above `low`, float64.
        above_high: number of entries at or above `high`.
        wanted: m, float64.
    """

    low: Tensor
    high: Tensor
    above_low: Tensor
    above_high: Tensor
    wanted: Tensor

    @classmethod
    def of(cls, wanted: Tensor, total: float) -> "_Bracket":
        """All non-negative floats, or the ends of them where nothing or everything is wanted."""
        low = torch.where(wanted > 0, 0, INFINITY_BITS - 1)
        high = torch.where(wanted < total, INFINITY_BITS, 1)
        above_low = torch.where(wanted > 0, total, 0.0).double()
        return cls(low, high, above_low, torch.zeros_like(wanted), wanted)

    @property
    def open(self) -> Tensor:
        """Columns whose threshold is not yet known."""
        return self.high - self.low > 1

    def narrow(self, probes: Tensor, above: Tensor) -> "_Bracket":
        """Use that `above` [P, K] entries are at or above `probes` [P, K], rising bits from low to high."""
        bits = torch.cat([self.low[None], probes, self.high[None]])
        counts = torch.cat([self.above_low[None], above, self.above_high[None]])
        last = (above >= self.wanted).sum(0, keepdim=True)
        return _Bracket(
            torch.where(self.open, bits.gather(0, last)[0], self.low),
            torch.where(self.open, bits.gather(0, last + 1)[0], self.high),
            torch.where(self.open, counts.gather(0, last)[0], self.above_low),
            torch.where(self.open, counts.gather(0, last + 1)[0], self.above_high),
            self.wanted,
        )

    def close(self, count: Callable[[Tensor], Tensor]) -> "_Bracket":
        """Divide the bracket by 16 until it is closed, with `count` of the entries at or above bits [15, K]."""
        bracket = self
        parts = torch.arange(1, 16, device=self.low.device)[:, None]
        for _ in range(math.ceil(int((self.high - self.low).max()).bit_length() / 4)):
            probes = bracket.low + (bracket.high - bracket.low) * parts // 16
            bracket = bracket.narrow(probes, count(probes))
        return bracket


def column_thresholds(probs: Tensor, kept: Tensor, *, reduce: Reduce = identity) -> tuple[Tensor, Tensor, Tensor]:
    """Find the value of the m-th largest entry of each column, over all ranks, without a sort.

    Quantiles of a sample of the rows bracket the values, the entries inside the brackets are few and get sorted,
    and a search over the bits of a float32 finds the exact values by counts alone.

    Args:
        probs: [N, K] float32, non-negative; this rank's rows.
        kept: [K] float64, m of each column, whole numbers from 0 to N.
        reduce: sum over ranks.

    Returns:
        [K] threshold, float64: m entries are at or above it if none are tied.
        [K] share in [0, 1], float64: how much of each entry that is tied at the threshold makes m.
        [K] excess: entries at or above the threshold beyond m, as a number.
    """
    total = reduce(kept.new_tensor([len(probs)])).item()
    bracket = _Bracket.of(kept, total)
    if total > SAMPLE_ROWS:
        probes = _sample_quantiles(probs, kept, total, reduce)
        bracket = bracket.narrow(probes, reduce(_count_at_or_above(probs, probes)))
        while float(((bracket.above_low - bracket.above_high) * bracket.open).sum()) > total * len(kept) / 8:
            # Many are inside. Is the threshold tied, or far from the sample's?
            probes = torch.stack([bracket.low + 1, (bracket.low + bracket.high + 1) // 2])
            bracket = bracket.narrow(probes, reduce(_count_at_or_above(probs, probes)))
    bracket = bracket.close(_candidate_counter(probs, bracket, reduce))
    tied = (bracket.above_low - bracket.above_high).clamp(min=1)
    share = (kept - bracket.above_high) / tied
    return _floats(bracket.low).double(), share, bracket.above_low - kept


def _floats(bits: Tensor) -> Tensor:
    """Return the float32 numbers that have these bits."""
    return bits.to(torch.int32).view(torch.float32)


def _sample_quantiles(probs: Tensor, kept: Tensor, total: float, reduce: Reduce) -> Tensor:
    """Bits [2, K] below and above each column's threshold, by five standard errors of its rank in a sample."""
    sample = probs[:: max(1, int(total) // SAMPLE_ROWS)].t().contiguous().sort(1).values
    size = reduce(kept.new_tensor([sample.shape[1]])).item()

    def count(bits: Tensor) -> Tensor:
        below = torch.searchsorted(sample, _floats(bits).t().contiguous()).t()
        return reduce((sample.shape[1] - below).double())

    rank = kept * (size / total)
    margin = 5 * (rank * (1 - rank / size)).clamp(min=0).sqrt() + 2
    fewer, more = (rank - margin).floor().clamp(min=0), (rank + margin).ceil().clamp(max=size)
    return torch.stack([_Bracket.of(wanted, size).close(count).low for wanted in (more, fewer)])


def _count_at_or_above(probs: Tensor, probes: Tensor) -> Tensor:
    """Count this rank's entries of each column at or above probes [P, K]; [P, K] float64."""
    counts = torch.zeros(probes.shape, dtype=torch.float64, device=probs.device)
    limits = _floats(probes)
    for span, work in _blocks(probs):
        for index, limit in enumerate(limits):
            counts[index] += torch.ge(probs[span], limit, out=work).sum(0)
    return counts


def _candidate_counter(probs: Tensor, bracket: _Bracket, reduce: Reduce) -> Callable[[Tensor], Tensor]:
    """Sort the entries inside the open brackets; return a counter of entries at or above bits inside them."""
    low = torch.where(bracket.open, _floats(bracket.low), torch.inf)
    high = _floats(bracket.high)
    classes = probs.shape[1]
    keys = []
    for span, _ in _blocks(probs):
        block = probs[span]
        inside = (block >= low).logical_and_(block < high)
        where = inside.view(-1).nonzero()[:, 0]
        bits = block.reshape(-1)[where].view(torch.int32).long()
        keys.append(((where % classes) << 32) | bits)
    column = torch.arange(classes, device=probs.device) << 32
    candidates = torch.cat([*keys, column[:0]]).sort().values
    ends = torch.searchsorted(candidates, column + (1 << 32))

    def count(bits: Tensor) -> Tensor:
        local = ends - torch.searchsorted(candidates, column | bits)
        return bracket.above_high + reduce(local.double())

    return count


# Projection


@dataclass(frozen=True)
class _Problem:
    """Rows of one rank, with what does not change while prices are sought.

    Attributes:
        rows: [n, K] float32.
        entropies: [n] float32, in nats.
        target: [K] float64, with the number of rows over all ranks as sum.
        share: this rank's share of the rows.
        diffuse: [1] float64, entropy over all ranks as a number of uniform rows.
        part: one row in so many tells the curvature.
        reduce: sum over ranks.
    """

    rows: Tensor
    entropies: Tensor
    target: Tensor
    share: float
    diffuse: Tensor
    part: int
    reduce: Reduce


@dataclass(frozen=True)
class _State:
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


def _project_in_place(
    rows: Tensor,
    target: Tensor,
    warm_start: Tensor | None,
    tolerance: float,
    max_iterations: int,
    reduce: Reduce,
) -> Refinement:
    total, target = _checked(rows, target, reduce)
    nu = torch.zeros_like(target) if warm_start is None else warm_start.to(target)
    if nu.shape != target.shape:
        raise ValueError(f"warm_start must have shape {tuple(target.shape)}, not {tuple(nu.shape)}")
    nats = entropies(rows)
    diffuse = reduce(nats.sum(dtype=torch.float64)[None]) / _uniform_entropy(target)
    # The K x K product costs as much as K / 16 of the other operations; a part of the rows will do for it, since
    # `_direction` scales it to the exact diagonal.
    part = max(1, min(len(target) // CURVATURE_CLASSES, len(rows) // (CURVATURE_ROWS * len(target))))
    problem = _Problem(rows, nats, target, len(rows) / total, diffuse, part, reduce)
    state, iterations = _solve(problem, nu, tolerance * target.clamp(min=1), max_iterations)
    exponents = _exponents(state.nu, target)
    for span, work in _blocks(rows):
        weights = _weights(rows[span], nats[span], exponents, work)
        torch.div(weights, weights.sum(1, keepdim=True), out=rows[span])
    residual = float((state.totals - target).abs().max()) / total
    return Refinement(rows, state.nu, residual, residual <= tolerance, iterations)


def _solve(problem: _Problem, nu: Tensor, band: Tensor, budget: int) -> tuple[_State, int]:
    """Find prices at which every column is within its band of the target; also count the evaluations.

    A step may lead to up to `slack` times the distance: from above a target Newton's way back is short, while
    from below it can be long. The slack shrinks as long as the distance sets no new low, which ends cycles.
    """
    state, used = _evaluate(problem, nu, band), 1
    best, slack = state.distance, SLACK
    while used < budget and not state.close:
        step = _direction(problem, state)
        limit = slack * state.distance + ROUNDING * float(problem.target.sum())
        for halving in range(MOST_HALVINGS):
            trial = _evaluate(problem, _moved(problem, state, step / 2**halving), band)
            used += 1
            if trial.distance <= limit or used >= budget:
                break
        if not (trial.distance <= limit and bool(step.any())):
            break
        state = trial
        slack = SLACK if state.distance < best else (1 + slack) / 2
        best = min(best, state.distance)
    return state, used


def _evaluate(problem: _Problem, nu: Tensor, band: Tensor) -> _State:
    """Visit all rows once: column totals, and the curvature of the dual."""
    target, classes = problem.target, len(problem.target)
    nu = torch.where(target > 0, nu - nu[target > 0].min(), 0.0)
    exponents = _exponents(nu, target)
    sums, coupling = nu.new_zeros((3, classes)), problem.rows.new_zeros((classes, classes))
    samples: list[Tensor] = []
    for span, work in _blocks(problem.rows):
        nats = problem.entropies[span]
        shares = _weights(problem.rows[span], nats, exponents, work)
        shares.div_(shares.sum(1, keepdim=True))
        sums[0] += shares.sum(0)
        sums[1:] += torch.stack([torch.ones_like(nats), nats]) @ (1 - shares).mul_(shares)
        samples.append(shares[:: problem.part] * nats[:: problem.part, None].sqrt())
        if len(samples) == problem.part or span.stop == len(problem.rows):  # one product for as much as a block
            sample = torch.cat(samples)
            coupling.addmm_(sample.t(), sample)
            samples.clear()
    totals, contested, degrees = problem.reduce(sums)
    totals = totals * (target.sum() / totals.sum())  # the rounding of large columns must not move small ones
    gap = (totals - target).abs()
    distance, outside = torch.stack([gap.sum(), (gap > band).sum()]).tolist()
    return _State(nu, totals, contested, degrees, coupling.double().fill_diagonal_(0), distance, outside == 0)


def _exponents(nu: Tensor, target: Tensor) -> Tensor:
    """Return -nu as float32, and a most negative number for columns that are to be empty."""
    return torch.where(target > 0, -nu, -1e30).float()


def _weights(rows: Tensor, entropies: Tensor, exponents: Tensor, out: Tensor) -> Tensor:
    """Return p_ik exp(-nu_k H_i), not normalized.

    No exponent is positive and that of one column is 0, so that nothing overflows and a row of predictions of
    1e-12 or more cannot vanish. One with zeros may; by the lowest exponent it then keeps its predictions.
    """
    torch.mul(entropies[:, None], exponents, out=out)
    return out.clamp_(min=LOWEST_EXPONENT).exp_().mul_(rows)


def _wanted_losses(problem: _Problem, state: _State) -> Tensor:
    """How much each column should lose to first order such that it arrives at the target beyond first order.

    Newton's method takes (c - q) for it and is far off where the rows of a column are nearly decided: there
    the contested mass v changes by the exponential of a move. With x the fall in nats and v x the loss, the
    same as c - q to first order,

        c < q:  c + v (exp(-x) - 1) = q              what is contested grows
        c > q:  c = n y -> q with v = n y (1 - y)    the share y of n like rows falls, its logit by x

    Returns:
        [K] v x, positive where a column has too much.
    """
    have, target = state.totals.clamp(min=1e-30), problem.target
    contested = torch.minimum(state.contested, have * (1 - 1e-9)).maximum(have * 1e-12)
    rise = torch.log1p((target - have).clamp(min=0) / contested)
    rows = have.square() / (have - contested)
    wanted = target.clamp(min=FLOOR)
    fall = ((have - contested) / contested).log() + ((rows - wanted).clamp(min=FLOOR) / wanted).log()
    return contested * torch.where(have > target, fall, -rise)


def _direction(problem: _Problem, state: _State) -> Tensor:
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
    losses = _wanted_losses(problem, state) * scale
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


def _moved(problem: _Problem, state: _State, step: Tensor) -> Tensor:
    """Add a step to prices, less of it where a price would fall so low that uniform rows flock to the column.

    As they have most entropy they are the first to do so, and what they will do is known: their shares are a
    softmax. A column may attract some more of them than it lacks.
    """
    nats = _uniform_entropy(step)
    logits = torch.where(problem.target > 0, -nats * state.nu, -torch.inf)
    shares = logits.softmax(0)
    lacking = (problem.target - state.totals).clamp(min=0)
    most = CROWD * (shares + lacking / problem.diffuse.clamp(min=1e-12))
    lowest = shares @ step - (logits.logsumexp(0) + most.clamp(min=1e-30).log()) / nats
    return (state.nu + step).maximum(lowest)


def _uniform_entropy(classes: Tensor) -> float:
    return math.log(max(2, len(classes)))
