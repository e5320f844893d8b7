"""Compare two settings over the seeds that both have: wins, and the paired t-test."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """Two settings over their shared seeds.

    Attributes:
        n: The number of shared seeds.
        wins: On how many of them the first one is better.
        ties: On how many of them both are equal.
        mean: Mean difference, the first minus the second.
        p: The two-sided p-value of the paired t-test; None if `n` is below 2 or all differences are equal.
    """

    n: int
    wins: int
    ties: int
    mean: float
    p: float | None


def paired(first: Mapping[str, float], second: Mapping[str, float], smaller: bool = False) -> Paired | None:
    """Compare the numbers of two settings by seed; None if they share no seed with finite numbers.

    Args:
        first: The numbers of the first one by seed.
        second: The numbers of the second one by seed.
        smaller: Whether the smaller number is the better one.
    """
    shared = [seed for seed in first if seed in second]
    gaps = [first[seed] - second[seed] for seed in shared]
    gaps = [gap for gap in gaps if math.isfinite(gap)]
    if not gaps:
        return None
    wins = sum((gap < 0) if smaller else (gap > 0) for gap in gaps)
    return Paired(len(gaps), wins, gaps.count(0), statistics.fmean(gaps), p_value(gaps))


def p_value(differences: list[float]) -> float | None:
    """Compute the two-sided p-value of Student's t-test that the mean of some differences is 0.

    t = mean / (s / sqrt(n)) with n - 1 degrees of freedom; None where t is not defined.
    """
    n = len(differences)
    spread = statistics.stdev(differences) if n > 1 else 0.0
    if spread == 0 or spread < 1e-12 * max(map(abs, differences)):
        return None
    return two_sided(statistics.fmean(differences) / (spread / math.sqrt(n)), n - 1)


def two_sided(t: float, freedom: int) -> float:
    """Compute P(|T| > |t|) of Student's distribution with a whole number of degrees of freedom, by its finite sum.

    Abramowitz and Stegun 1964, equations 26.7.3 and 26.7.4, with theta = arctan(t / sqrt(freedom)). The error is
    about 1e-15 absolute.
    """
    theta = math.atan(abs(t) / math.sqrt(freedom))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = freedom % 2
    term, total = (math.cos(theta), 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):  # cos^(k - 1) theta with its factor, up to cos^(freedom - 2) theta
        total += term
        term *= square * k / (k + 1)
    inside = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return max(0.0, 1.0 - inside)
