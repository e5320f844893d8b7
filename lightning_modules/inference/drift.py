"""Drift of predicted classes: whether the predictions of a window are distributed as those of a reference.

Both are samples: n predictions in the window, with c_k of class k, and N in the reference, with r_k. If they have one
distribution, its estimate is p_k = (c_k + r_k) / (n + N), and the likelihood ratio of this to two distributions is

    G = 2 sum_k [ c_k log(c_k / (n p_k)) + r_k log(r_k / (N p_k)) ]

which is distributed as chi-square with K - 1 degrees of freedom if expected counts are large (Wilks 1938). As N grows,
G becomes 2 n KL(window || reference). That number alone, 2 n KL, is no test against a reference that is itself a
sample: without any drift it is about 1 + n / N times a chi-square, and so an alarm in most windows of n = N.

Two corrections make G usable for rare classes and small windows. Classes are merged, from the rarest on, until each has
an expected count of 5 in either sample (Cochran 1954); what is merged depends on c_k + r_k alone, which says nothing of
a difference. And G is divided by Williams' q (1976), which takes its mean to that of chi-square:

    q = 1 + (T/n + T/N - 1) (sum_k T / (c_k + r_k) - 1) / (6 T (K - 1)),   T = n + N
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

LEAST_EXPECTED = 5.0
"""The least expected count of a class, in the window and in the reference; rarer ones are merged."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Drift:
    """How the predictions of a window differ from the reference.

    Attributes:
        images: The number n of predictions in the window.
        distance: The total variation, half the sum of the differences of shares, in [0, 1]; NaN of no predictions. It
            has no merging and no correction, so that a small window has a distance without any drift.
        g: The statistic G, after merging and Williams' correction; 0 if nothing can be compared.
        degrees: The degrees of freedom of G: the number of classes after merging, less 1.
        p: The probability of such a G or a larger one without drift. NaN: the window or the reference is too small.
    """

    images: int
    distance: float
    g: float
    degrees: int
    p: float

    def is_alarm(self, level: float, least_distance: float = 0.0) -> bool:
        """Tell whether p is below a level, and the distance at least a least one; a p of NaN is no alarm."""
        return self.p < level and self.distance >= least_distance


def drift_of(counts: Sequence[int] | Counts, reference: Sequence[int] | Counts) -> Drift:
    """Compare the counts of a window with those of the reference, `[K]` each."""
    window, known = np.asarray(counts, np.int64), np.asarray(reference, np.int64)
    n, total = int(window.sum()), int(known.sum())
    if not n or not total:
        return Drift(n, math.nan, 0.0, 0, math.nan)
    distance = float(np.abs(window / n - known / total).sum() / 2)
    few, many = merged(window, known)
    if len(few) < 2:
        return Drift(n, distance, 0.0, 0, math.nan)
    g = likelihood_ratio(few, many) / williams(few, many)
    return Drift(n, distance, g, len(few) - 1, chi_square_tail(g, len(few) - 1))


def merged(counts: Counts, reference: Counts, least: float = LEAST_EXPECTED) -> tuple[Counts, Counts]:
    """Merge rare classes until each has an expected count of `least` in both samples.

    Classes are taken from the rarest to the most frequent one, by the sum of both counts. Each is joined to the ones
    before it until the expected count of the group is large enough; what is left at the end joins the last group.

    Returns:
        The counts of the merged classes, those of the window and those of the reference, rarest first.
    """
    sums = counts + reference
    smaller = min(int(counts.sum()), int(reference.sum())) / int(sums.sum())
    groups: list[list[int]] = [[]]
    for k in np.argsort(sums, kind="stable").tolist():
        groups[-1].append(k)
        if smaller * float(sums[groups[-1]].sum()) >= least:
            groups.append([])
    rest = groups.pop()
    if groups:
        groups[-1] += rest
    else:
        groups = [rest]
    return tuple(np.array([int(of[group].sum()) for group in groups], np.int64) for of in (counts, reference))  # type: ignore[return-value]


def likelihood_ratio(counts: Counts, reference: Counts) -> float:
    """Compute G of two samples, `[K]` each, without a correction; no class may be empty in both."""
    sums = counts + reference
    g = 0.0
    for sample in (counts, reference):
        expected = sample.sum() * (sums / sums.sum())
        seen = sample > 0
        g += 2 * float((sample[seen] * np.log(sample[seen] / expected[seen])).sum())
    return max(g, 0.0)  # equal samples may give -1e-16


def williams(counts: Counts, reference: Counts) -> float:
    """Compute Williams' q for two samples of K classes, by which G is divided; no class may be empty in both."""
    sums = counts + reference
    total = float(sums.sum())
    ends = total / float(counts.sum()) + total / float(reference.sum()) - 1
    return 1 + ends * float((total / sums).sum() - 1) / (6 * total * (len(sums) - 1))


def chi_square_tail(value: float, degrees: int) -> float:
    """Compute the probability that chi-square with so many degrees of freedom is above a value."""
    half = torch.tensor([degrees / 2, value / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def largest_changes(
    counts: Sequence[int] | Counts, reference: Sequence[int] | Counts, number: int = 3
) -> list[tuple[int, float, float]]:
    """Find the classes whose shares differ most.

    Returns:
        For each, from the largest difference on: the class, its share in the reference, and that in the window. Classes
        without a difference are left out.
    """
    window, known = np.asarray(counts, np.float64), np.asarray(reference, np.float64)
    now, before = window / max(window.sum(), 1), known / max(known.sum(), 1)
    ranked = np.argsort(-np.abs(now - before), kind="stable")[:number].tolist()
    return [(k, float(before[k]), float(now[k])) for k in ranked if now[k] != before[k]]
