"""DARP's prices: fitted to some rows, kept in a file, applied to any number of others."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.noise import Cuts
from tailmatch.callbacks.remedies.darp.rows import Reduce, blocks
from tailmatch.callbacks.remedies.darp.solver import ALPHA, TOLERANCE, Prices, Solution, Solver
from tailmatch.datamodules.arguments import (
    MissingFileError,
    SettingsError,
    check_at_least,
    check_between,
    check_count,
    check_each,
    check_names,
)
from tailmatch.datamodules.output_files import write_json

MOST_BYTES = 10_000_000
"""The largest file that is read; a class takes about 150 bytes."""

_LARGEST = torch.finfo(torch.float32).max
VECTORS = {"threshold": (0, _LARGEST), "cut": (-_LARGEST, 0), "scale": (0, _LARGEST), "nu": (0, 1e30)}
"""The vectors of a file with their bounds."""


def alone(value: Tensor) -> Tensor:
    """Return the sum over one rank."""
    return value


@dataclass(frozen=True)
class FittedPrices:
    """Prices, and what is known of the fit.

    Attributes:
        prices: The prices.
        class_names: The names of the K classes.
        rows: The number n of rows that they were fitted to.
        alpha: See `Solver`.
        tolerance: See `Solver`.
        residual: How far a class total of these rows is off its target, at most, as a share of it.
        errors: `float64 [K]`, the standard error of each class total, as a share of it, where the prices refine many
            rows of which these are a random sample; 0 for classes whose target is 0.
    """

    prices: Prices
    class_names: list[str]
    rows: int
    alpha: float
    tolerance: float
    residual: float
    errors: Tensor

    def errors_for(self, rows: int) -> Tensor:
        """Return `errors` for a set of so many rows that contains those of the fit; 0 if it has no others."""
        return self.errors * math.sqrt(max(0.0, 1 - self.rows / rows))


def fit_prices(
    probs: Tensor,
    target: Tensor,
    class_names: list[str],
    alpha: float = ALPHA,
    tolerance: float = TOLERANCE,
    reduce: Reduce = alone,
) -> tuple[FittedPrices, Solution]:
    """Find the prices of rows, and the refined rows.

    The standard errors are those of means: the refined rows y of a sample of n meet the target share q_k exactly, and
    those of all rows miss it by the difference of two means of y_k at the same prices, sd(y_k) / sqrt(n).

    Args:
        probs: `float32 [n, K]`, rows sum to 1; with several ranks, this rank's.
        target: `[K]`, the class totals, of which only the ratios matter.
        class_names: The names of the K classes.
        alpha: See `Solver`.
        tolerance: See `Solver`.
        reduce: The sum over ranks; all get the same prices.
    """
    rows = int(reduce(torch.tensor([len(probs)], dtype=torch.float64)))
    solution = Solver(alpha, tolerance, reduce=reduce).solve(probs, target * (rows / target.sum()))
    if solution.prices is None:
        raise RuntimeError("a solution of `solve` has prices")
    shares = target.double() / target.sum()
    squares = torch.zeros_like(shares)
    for span, work in blocks(solution.rows):
        squares += torch.mul(solution.rows[span], solution.rows[span], out=work).sum(0, dtype=torch.float64)
    deviation = (reduce(squares) / rows - shares.square()).clamp(min=0).sqrt()
    errors = torch.where(shares > 0, deviation / shares.clamp(min=1e-300) / math.sqrt(rows), 0.0)
    fitted = FittedPrices(solution.prices, class_names, rows, alpha, tolerance, solution.residual, errors)
    return fitted, solution


def write_prices(path: Path, fitted: FittedPrices) -> None:
    """Write prices as JSON."""
    write_json(path, content_of(fitted))


def content_of(fitted: FittedPrices) -> dict[str, Any]:
    """Return what a file of prices says, in plain values from which `prices_of` makes the same bits again."""
    prices = fitted.prices
    cuts = {name: tensor.tolist() for name, tensor in vars(prices.cuts).items()}
    facts = {name: getattr(fitted, name) for name in ("class_names", "rows", "alpha", "tolerance", "residual")}
    target = (prices.target / prices.target.sum()).tolist()
    return {**facts, "target": target, **cuts, "nu": prices.nu.tolist(), "standard_error": fitted.errors.tolist()}


def read_prices(path: Path) -> FittedPrices:
    """Read a file of `write_prices`.

    Raises:
        MissingFileError: The file is missing.
        SettingsError: It is no file of prices.
    """
    if not path.is_file():
        raise MissingFileError(f"no file of prices {path}: `tailmatch refine --save_prices FILE` writes one")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SettingsError(f"it has {path.stat().st_size:,} bytes; at most {MOST_BYTES:,} are read")
        return prices_of(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise SettingsError(f"{path} is no file of DARP's prices: {reason}") from error


def prices_of(content: dict[str, Any]) -> FittedPrices:
    """Make prices of what a file says.

    Raises:
        ValueError, KeyError, TypeError: It is no file of prices.
    """
    names = content["class_names"]
    check_names("class_names", names)
    check_count("rows", content["rows"])
    check_at_least("alpha", content["alpha"], 1)
    for name in ("tolerance", "residual"):
        check_at_least(name, content[name], 0)
    for name in ("target", "standard_error"):
        check_each(name, content[name], check_at_least, 0, length=len(names))
    for name, bounds in VECTORS.items():
        check_each(name, content[name], check_between, *bounds, length=len(names))
    target = torch.tensor(content["target"], dtype=torch.float64)
    if not 0 < float(target.sum()) < math.inf:
        raise SettingsError(f"the sum of target is {float(target.sum())}; it must be above 0 and finite")
    cuts = Cuts(*(torch.tensor(content[name], dtype=torch.float32) for name in ("threshold", "cut", "scale")))
    prices = Prices(cuts, torch.tensor(content["nu"], dtype=torch.float64), target)
    facts = {name: content[name] for name in ("rows", "alpha", "tolerance", "residual")}
    errors = torch.tensor(content["standard_error"], dtype=torch.float64)
    return FittedPrices(prices, list(names), **facts, errors=errors)
