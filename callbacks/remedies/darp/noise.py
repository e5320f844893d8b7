"""DARP's noise removal: keep each class's most confident predictions, without a sort.

Kim et al., NeurIPS 2020, arXiv 2007.08844; authors' code bbuing9/DARP (`common.py`: `estimate_pseudo`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.rows import FLOOR, Reduce, Totals, blocks

INFINITY_BITS = 0x7F800000  # float32 infinity: the bits of non-negative floats are ordered like the floats
SAMPLE_ROWS = 4096  # rows whose quantiles bracket the column thresholds


@dataclass(frozen=True)
class Cuts:
    """What decides, of each class, which entries are kept and how they are scaled: noise removal as one of rows.

    Attributes:
        threshold: `float32 [K]`, the least entry that is kept.
        cut: `float32 [K]`, what is added to entries tied at the threshold, at most 0.
        scale: `float32 [K]`, the factor of kept entries.
    """

    threshold: Tensor
    cut: Tensor
    scale: Tensor


def find_cuts(probs: Tensor, totals: Totals, alpha: float) -> Cuts:
    """Find what is kept of each class, and the scale that brings it to the class total.

        kept_k  = the top int(alpha q_k) entries of column k
        t_ik    = p_ik (q_k + 1e-6) / (sum(kept_k) + 1e-6) + 1e-6 if kept, else 1e-6
        result  = t_ik / sum_j t_ij                                                       (`kept_rows`)

    Among entries tied at the threshold, the authors keep those that their sort happens to put first. Here each is
    kept in the same proportion, such that the kept sum is the authors': the mean of t over the orders of the
    tied, and the same for any order of the rows and any number of ranks.

    Args:
        probs: `float32 [N, K]`, non-negative; this rank's rows.
        totals: the class totals q.
        alpha: share of its total that a class keeps, positive.
    """
    target = totals.target
    kept = (alpha * target).floor().clamp(max=totals.rows)
    threshold, share, excess = column_thresholds(probs, kept, totals.rows, totals.reduce)
    threshold = threshold.float()
    sums = torch.zeros_like(target)
    for span, work in blocks(probs):
        sums += torch.ge(probs[span], threshold, out=work).mul_(probs[span]).sum(0)
    scale = (target + FLOOR) / (totals.reduce(sums) - excess * threshold + FLOOR)
    return Cuts(threshold, ((share - 1) * threshold).float(), scale.float())


def kept_rows(probs: Tensor, cuts: Cuts) -> Tensor:
    """Keep and scale entries of rows, each row by itself.

    Args:
        probs: `float32 [N, K]`, non-negative.
        cuts: What is kept of each class.

    Returns:
        `float32 [N, K]`, positive, rows sum to 1.
    """
    ties = bool((cuts.cut < 0).any())
    result = torch.empty_like(probs)
    for span, work in blocks(probs):
        out = torch.ge(probs[span], cuts.threshold, out=result[span]).mul_(probs[span])
        if ties:
            out.addcmul_(torch.eq(probs[span], cuts.threshold, out=work), cuts.cut)
        out.mul_(cuts.scale).add_(FLOOR)
        out.div_(out.sum(1, keepdim=True))
    return result


@dataclass(frozen=True)
class _Bracket:
    """Bits of the m-th largest entry of each column, from below (inclusive) and above (exclusive).

    Attributes:
        bits: `int64 [2, K]`: with at least `wanted` entries at or above, and with fewer.
        above: `float64 [2, K]`: number of entries at or above `bits`.
        wanted: `float64 [K]`, m.
    """

    bits: Tensor
    above: Tensor
    wanted: Tensor

    @classmethod
    def of(cls, wanted: Tensor, total: float) -> "_Bracket":
        """Begin with all non-negative floats, or with one end of them where nothing or everything is wanted."""
        low = torch.where(wanted > 0, 0, INFINITY_BITS - 1)
        high = torch.where(wanted < total, INFINITY_BITS, 1)
        above_low = torch.where(wanted > 0, total, 0.0).double()
        return cls(torch.stack([low, high]), torch.stack([above_low, torch.zeros_like(wanted)]), wanted)

    @property
    def low(self) -> Tensor:
        """The lower end; the threshold itself once the bracket is closed."""
        return self.bits[0]

    @property
    def width(self) -> Tensor:
        """The number of floats inside the bracket of each column; 1 where the threshold is known."""
        return self.bits[1] - self.bits[0]

    @property
    def inside(self) -> Tensor:
        """The number of entries inside the bracket of each column."""
        return self.above[0] - self.above[1]

    def narrow(self, probes: Tensor, above: Tensor) -> "_Bracket":
        """Use that `above` `[P, K]` entries are at or above `probes` `[P, K]`, rising bits from low to high."""
        bits = torch.cat([self.bits[:1], probes, self.bits[1:]])
        counts = torch.cat([self.above[:1], above, self.above[1:]])
        last = (above >= self.wanted).sum(0, keepdim=True)
        ends, is_open = torch.cat([last, last + 1]), self.width > 1
        return _Bracket(
            torch.where(is_open, bits.gather(0, ends), self.bits),
            torch.where(is_open, counts.gather(0, ends), self.above),
            self.wanted,
        )

    def close(self, count: Callable[[Tensor], Tensor]) -> "_Bracket":
        """Divide the bracket by 16 until it is closed, with `count` of the entries at or above bits [15, K]."""
        bracket = self
        parts = torch.arange(1, 16, device=self.bits.device)[:, None]
        for _ in range(math.ceil(int(self.width.max()).bit_length() / 4)):
            probes = bracket.low + bracket.width * parts // 16
            bracket = bracket.narrow(probes, count(probes))
        return bracket


def column_thresholds(probs: Tensor, kept: Tensor, total: float, reduce: Reduce) -> tuple[Tensor, Tensor, Tensor]:
    """Find the value of the m-th largest entry of each column, over all ranks, without a sort.

    Quantiles of a sample of the rows bracket the values, the entries inside the brackets are few and get sorted,
    and a search over the bits of a float32 finds the exact values by counts alone.

    Args:
        probs: `float32 [N, K]`, non-negative; this rank's rows.
        kept: `float64 [K]`, m of each column, whole numbers from 0 to the total.
        total: number of rows over all ranks.
        reduce: sum over ranks.

    Returns:
        `float64 [K]`, the threshold: m entries are at or above it if none are tied.
        `float64 [K]`, the share in [0, 1] with which each entry tied at the threshold counts, to make m.
        `float64 [K]`, the excess: the number of entries at or above the threshold beyond m.
    """
    bracket = _Bracket.of(kept, total)
    if total > SAMPLE_ROWS:
        probes = _sample_quantiles(probs, kept, total, reduce)
        bracket = bracket.narrow(probes, reduce(_count_at_or_above(probs, probes)))
        while float((bracket.inside * (bracket.width > 1)).sum()) > total * len(kept) / 8:
            # Many are inside. Is the threshold tied, or far from the sample's?
            probes = bracket.low + torch.stack([torch.ones_like(bracket.low), (bracket.width + 1) // 2])
            bracket = bracket.narrow(probes, reduce(_count_at_or_above(probs, probes)))
    bracket = bracket.close(_candidate_counter(probs, bracket, reduce))
    share = (kept - bracket.above[1]) / bracket.inside.clamp(min=1)
    return _floats(bracket.low).double(), share, bracket.above[0] - kept


def _floats(bits: Tensor) -> Tensor:
    """Return the float32 numbers that have these bits."""
    return bits.to(torch.int32).view(torch.float32)


def _sample_quantiles(probs: Tensor, kept: Tensor, total: float, reduce: Reduce) -> Tensor:
    """Bits [2, K] below and above each column's threshold, by five standard errors of its rank in a sample."""
    sample, classes = probs[:: max(1, int(total) // SAMPLE_ROWS)], len(kept)
    places = torch.arange(sample.numel(), device=probs.device)
    size = reduce(kept.new_full((1,), len(sample))).item()
    local = _count_by_sort([_keys(sample.flatten(), places, classes)], classes, probs.device)

    def count(bits: Tensor) -> Tensor:
        return reduce(local(bits.view(-1, classes))).view(bits.shape)

    rank = kept * (size / total)
    margin = 5 * (rank * (1 - rank / size)).clamp(min=0).sqrt() + 2
    fewer, more = (rank - margin).floor().clamp(min=0), (rank + margin).ceil().clamp(max=size)
    return _Bracket.of(torch.cat([more, fewer]), size).close(count).low.view(2, classes)  # both in one search


def _count_at_or_above(probs: Tensor, probes: Tensor) -> Tensor:
    """Count this rank's entries of each column at or above probes [P, K]; `float64 [P, K]`."""
    counts = torch.zeros(probes.shape, dtype=torch.float64, device=probs.device)
    limits = _floats(probes)
    for span, work in blocks(probs):
        for index, limit in enumerate(limits):
            counts[index] += torch.ge(probs[span], limit, out=work).sum(0)
    return counts


def _candidate_counter(probs: Tensor, bracket: _Bracket, reduce: Reduce) -> Callable[[Tensor], Tensor]:
    """Sort the entries inside the open brackets; return a counter of entries at or above bits inside them."""
    low = torch.where(bracket.width > 1, _floats(bracket.low), torch.inf)
    high = _floats(bracket.bits[1])
    classes = probs.shape[1]
    keys = []
    for span, _ in blocks(probs):
        block = probs[span]
        inside = (block >= low).logical_and_(block < high)
        where = inside.view(-1).nonzero()[:, 0]
        keys.append(_keys(block.reshape(-1)[where], where, classes))
    local = _count_by_sort(keys, classes, probs.device)

    def count(bits: Tensor) -> Tensor:
        return bracket.above[1] + reduce(local(bits))

    return count


def _keys(values: Tensor, places: Tensor, classes: int) -> Tensor:
    """Make whole numbers that sort entries [n] of a flat [N, K] by column, then by value."""
    return ((places % classes) << 32) | values.view(torch.int32).long()


def _count_by_sort(keys: list[Tensor], classes: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Sort keys, whole numbers since PyTorch sorts those far faster than floats; return a counter.

    It gives the number of each column's entries at or above bits [P, K], as `float64 [P, K]`.
    """
    column = torch.arange(classes, device=device) << 32
    ordered = torch.cat([*keys, column[:0]]).sort().values
    ends = torch.searchsorted(ordered, column + (1 << 32))
    return lambda bits: (ends - torch.searchsorted(ordered, column | bits)).double()
