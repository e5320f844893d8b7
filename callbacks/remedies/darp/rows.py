"""Class totals, rows in blocks, and the logarithms and entropies of rows, for both parts of DARP's solver."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.lightning_modules.training.distributed import sum_over_processes

Reduce = Callable[[Tensor], Tensor]
"""The sum of a float64 tensor over the ranks, bit-identical on each rank; its argument is not changed."""

FLOOR = 1e-6  # added to kept predictions and to both sides of the column scale by the authors' code
LOG_TINY = -85.0  # logarithm of a normal float32 next to zero


@dataclass(frozen=True)
class Totals:
    """Class totals for the rows of all ranks.

    Attributes:
        target: `float64 [K]`, non-negative, sums to `rows`.
        rows: number of rows over all ranks.
        reduce: sum over ranks.
    """

    target: Tensor
    rows: float
    reduce: Reduce

    @classmethod
    def of(cls, probs: Tensor, target: Tensor, reduce: Reduce = sum_over_processes) -> "Totals":
        """Check predictions and totals, and scale the totals to the exact number of rows.

        Args:
            probs: `float32 [N, K]`, this rank's rows.
            target: `[K]`, non-negative, with the number of rows over all ranks as sum.
            reduce: sum over ranks.

        Raises:
            ValueError: shapes, type or totals do not fit.
        """
        if probs.ndim != 2 or probs.dtype != torch.float32:
            raise ValueError(f"probs must be a float32 matrix, not {probs.dtype} of shape {tuple(probs.shape)}")
        if target.shape != probs.shape[1:]:
            raise ValueError(f"target must have shape ({probs.shape[1]},), not {tuple(target.shape)}")
        target = target.detach().to(probs.device, torch.float64)
        count = reduce(target.new_full((1,), len(probs)))[0]
        rows, given, allowed = torch.stack([count, target.sum(), (target >= 0).all().double()]).tolist()
        if not allowed:
            raise ValueError(f"target must have no negative entry, not {target.tolist()}")
        if rows == 0 or abs(given - rows) > 1e-3 * rows:
            raise ValueError(f"target must sum to the number of rows, {rows:.0f}, not {given}")
        return cls(target * (rows / target.sum()), rows, reduce)


def to_logs(probs: Tensor) -> Tensor:
    """Replace predictions by their logarithms, and return the row entropies, H_i = -sum_k p_ik log p_ik.

    The authors' code has log(p_ik + 1e-6), which makes the entropy of rows with an entry beyond 1 - 1e-6
    negative. Without it every problem with positive predictions is convex and has exactly one solution.

    An entry above one half counts as one minus the others of its row: rounded to float32 it would leave the
    entropy of a nearly one-hot row, 1e-5 or so, few digits.

    Args:
        probs: `float32 [N, K]`, rows sum to 1; afterwards log p_ik, minus infinity for zeros.

    Returns:
        `[N]`, in nats.
    """
    result, spare = probs.new_empty(len(probs)), scratch(probs)
    for span, work in blocks(probs):
        minor = torch.le(probs[span], 0.5, out=work).mul_(probs[span])
        rest = minor.sum(1).clamp_(max=1)
        logs = probs[span].log_()
        entropy = -torch.clamp(logs, min=LOG_TINY, out=spare[: len(minor)]).mul_(minor).sum(1)
        result[span] = entropy - (1 - rest) * torch.log1p(-rest.clamp(max=0.9))
    return result


def scratch(rows: Tensor) -> Tensor:
    """Allocate memory for a block of rows."""
    # On a processor 8 MiB stay in the cache, and threads seldom enough wait for each other; kernels want more.
    elements = 1 << 21 if rows.device.type == "cpu" else 1 << 26
    return rows.new_empty((max(1, min(len(rows), elements // rows.shape[1])), rows.shape[1]))


def blocks(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield spans of successive rows, each with scratch memory of its shape that all share."""
    work = scratch(rows)
    for start in range(0, len(rows), len(work)):
        stop = min(start + len(work), len(rows))
        yield slice(start, stop), work[: stop - start]
