"""False alarms and power of the drift of predicted classes, over simulated windows.

    python -m benchmarks.drift [--windows 20000]

Each window and its reference are drawn anew, from one long-tailed distribution (ratio 100) for false alarms, and the
window from the reversed one for power. Beside `drift_of`: 2 n KL(window || reference) against chi-square, with counts
of 0 in the reference taken as 1/2, which takes the reference for the truth.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from tailmatch.lightning_modules.inference.drift import chi_square_tail, drift_of

CASES = [(10, 1000, 60), (10, 1000, 300), (10, 1000, 1000), (10, 10000, 300), (100, 1000, 300), (100, 10000, 1000)]
"""Classes, size of the reference, size of a window."""

LEVELS = (0.05, 0.001)


def one_sample(counts: NDArray[np.int64], reference: NDArray[np.int64]) -> float:
    """Compute the p of 2 n KL, with the reference as the truth."""
    known = np.maximum(reference, 0.5)
    expected = counts.sum() * known / known.sum()
    seen = counts > 0
    g = 2 * float((counts[seen] * np.log(counts[seen] / expected[seen])).sum())
    return chi_square_tail(max(g, 0.0), len(counts) - 1)


def main() -> None:
    """Print the share of windows with an alarm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=20000)
    number = parser.parse_args().windows
    random = np.random.default_rng(0)
    levels = "  ".join(f"p < {level:<6}" for level in LEVELS)
    print(f"{'classes':>7} {'reference':>9} {'window':>7}   false alarms: {levels}   2 n KL: {levels}   power at 0.001")
    for classes, size, window in CASES:
        shares = 100.0 ** -np.linspace(0, 1, classes)
        shares /= shares.sum()
        known = random.multinomial(size, shares, number)
        drawn = random.multinomial(window, shares, number)
        ours = np.array([drift_of(c, r).p for c, r in zip(drawn, known, strict=True)])
        plain = np.array([one_sample(c, r) for c, r in zip(drawn, known, strict=True)])
        reversed_ = random.multinomial(window, shares[::-1], min(number, 1000))
        power = np.mean([drift_of(c, r).p < LEVELS[1] for c, r in zip(reversed_, known, strict=False)])
        rates = ["  ".join(f"{float((p < level).mean()):<10.5f}" for level in LEVELS) for p in (ours, plain)]
        print(
            f"{classes:>7} {size:>9} {window:>7}                 {rates[0]}           {rates[1]}   {power:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
