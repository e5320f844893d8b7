"""A plain NumPy/SciPy version of DARP's refinement, against which the solver is timed and tested.

`remove_noise` and `alternate` are the authors' algorithm (https://github.com/bbuing9/DARP, `common.py`); `converge`
solves the same equations to convergence, slowly and by other means than the solver. All functions take and return
float64 arrays: `probs [N, K]` with rows that sum to 1, and `target [K]` with sum N.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Array = NDArray[np.float64]


def remove_noise(probs: Array, target: Array, alpha: float) -> Array:
    """Keep the top int(alpha * target_k) of each column, scale it to the target, add 1e-6, normalize rows.

    Ties at the threshold share the remaining places of the column; the rest is one sort per column.
    """
    kept = np.zeros_like(probs)
    for k, total in enumerate(target):
        count = min(int(alpha * total), len(probs))
        if count == 0:
            continue
        column = probs[:, k]
        order = np.argsort(-column)
        threshold = column[order[count - 1]]
        above, tied = column > threshold, column == threshold
        share = (count - above.sum()) / tied.sum()
        scale = (total + 1e-6) / (column[order[:count]].sum() + 1e-6)
        kept[:, k] = column * (above + share * tied) * scale
    kept += 1e-6
    return kept / kept.sum(1, keepdims=True)


def entropies(probs: Array) -> Array:
    """Compute the entropy of each row in nats."""
    return -np.sum(probs * np.log(np.maximum(probs, 1e-300)), axis=1)


def alternate(probs: Array, target: Array, rounds: int = 10, tolerance: float = 0.1) -> Array:
    """Alternate between rows (divide) and columns (a scalar Newton search for each price), as published."""
    nats = entropies(probs)
    prices, weights = np.zeros(len(target)), np.exp(-nats)[:, None] * np.ones(len(target))  # all prices start at 1

    def excess(price: float, column: Array, rows: Array, total: float) -> float:
        return float(np.sum(column * rows * np.exp(-price * nats)) - total)

    for _ in range(rounds):
        rows = 1 / np.sum(probs * weights, axis=1)
        prices = np.array(
            [
                optimize.newton(
                    excess, prices[k], args=(probs[:, k], rows, total), tol=tolerance, maxiter=30, disp=False
                )
                for k, total in enumerate(target)
            ]
        )
        weights = np.exp(-prices * nats[:, None])
    refined = probs * weights
    return refined / refined.sum(1, keepdims=True)


def converge(probs: Array, target: Array, tolerance: float = 1e-5, steps: int = 1000) -> tuple[Array, float]:
    """Maximize the concave dual with Newton's direction and a search for the maximum along it.

    Returns:
        The rows, and the largest |column total - target| / max(target, 1). If this is small, it proves that the rows
        are the solution, which is unique if the predictions are positive. Columns of target 0 are empty, the limit of
        an infinite price.
    """
    wanted = target > 0
    probs_wanted, q, nats = probs[:, wanted], target[wanted], entropies(probs)[:, None]

    def rows_at(prices: Array) -> Array:
        weights = probs_wanted * np.exp(-(prices - prices.min()) * nats)
        return weights / weights.sum(1, keepdims=True)

    def slope_at(prices: Array) -> Array:
        return rows_at(prices).sum(0) - q

    prices = np.zeros(len(q))
    for _ in range(steps):
        rows = rows_at(prices)
        slope = rows.sum(0) - q
        if np.max(np.abs(slope) / np.maximum(q, 1)) <= tolerance:
            break
        laplacian = -(rows * nats).T @ rows
        np.fill_diagonal(laplacian, 0)
        degrees = np.maximum(-laplacian.sum(1), 1e-300)
        scaled = laplacian / np.sqrt(np.outer(degrees, degrees)) + (1 + 1e-12) * np.eye(len(q))
        step = np.linalg.solve(scaled, slope / np.sqrt(degrees)) / np.sqrt(degrees)
        prices = prices + _uphill(slope_at, prices, step) * step
    full = np.zeros_like(probs)
    full[:, wanted] = rows_at(prices)
    return full, float(np.max(np.abs(full.sum(0) - target) / np.maximum(target, 1)))


def _uphill(slope_at: Callable[[Array], Array], start: Array, step: Array) -> float:
    """Find approximately where the slope along a step becomes negative, as a fraction of the step, at most 1."""

    def rises(part: float) -> bool:
        return float(slope_at(start + part * step) @ step) >= 0

    if rises(1.0):
        return 1.0
    low = 0.5
    while not rises(low) and low > 1e-60:
        low /= 2
    high = 2 * low
    for _ in range(4):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) else (low, middle)
    return low
