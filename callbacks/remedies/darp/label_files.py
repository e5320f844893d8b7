"""DARP on pseudo-label files: `tailmatch refine`, also for more rows than fit in memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from tailmatch.callbacks.remedies.darp.label_rows import Here, Place
from tailmatch.callbacks.remedies.darp.prices import FittedPrices, read_prices, write_prices
from tailmatch.callbacks.remedies.darp.solver import ALPHA, TOLERANCE
from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_count, check_each, check_positive
from tailmatch.datamodules.output_files import check_free
from tailmatch.lightning_modules.pseudo_labels.class_prior import class_totals, read_prior

MAX_ERROR = 0.1


@dataclass(frozen=True)
class Refinement:
    """What a refinement did.

    Attributes:
        fitted: The prices.
        rows: The number of rows of the pseudo-labels.
        target: `float64 [K]`, the class totals that were to be reached.
        totals: `float64 [K]`, those of the refined rows, sums of probabilities. None: no output was written.
        errors: `float64 [K]`, the standard error of each class total, as a share of it; 0 if the fit had all rows.
    """

    fitted: FittedPrices
    rows: int
    target: Tensor
    totals: Tensor | None
    errors: Tensor


def refine_labels(
    labels: str | Path,
    output: str | Path | None = None,
    *,
    target: str | Path | Sequence[float] | None = None,
    prices: str | Path | None = None,
    sample: int | None = None,
    save_prices: str | Path | None = None,
    alpha: float = ALPHA,
    tolerance: float = TOLERANCE,
    max_error: float = MAX_ERROR,
    seed: int = 0,
    overwrite: bool = False,
    place: Place | None = None,
) -> Refinement:
    """Refine a pseudo-label file by DARP, so that its class totals are those of a target.

    The numbers are those of `DARPRefinement`. Prices are fitted to all rows, whose probabilities are then in memory
    twice, or to a random sample, and applied chunk by chunk; or they are read from a file.

    Args:
        labels: A pseudo-label file with the probabilities of all classes, or a folder of Parquet files of one.
        output: The file to write, `.npz` or `.parquet`. None: only `save_prices` is written.
        target: The class totals, of which only the ratios matter: a `prior.json` of `UnlabeledPriorEstimator`, or K
            numbers.
        prices: A file of prices to apply, instead of `target`.
        sample: The number of rows to fit the prices to. None: all.
        save_prices: The JSON file to write the prices to.
        alpha: See `DARPRefinement`.
        tolerance: See `DARPRefinement`.
        max_error: The largest standard error of a class total, as a share of it, that a sample may leave.
        seed: The seed of the sample.
        overwrite: Whether existing outputs are replaced.
        place: Where the rows are. None: in this process; `tailmatch.spark.refine.OnSpark`: executors.

    Raises:
        SettingsError: An argument or a file is wrong, a sample is too small for a class, or an output exists.
    """
    _check_arguments(output, target, prices, sample, save_prices, max_error)
    place = place or Here()
    if output is not None:
        place.check_output(output, overwrite)
    if save_prices is not None:
        check_free(Path(save_prices), overwrite)
    parts = place.open(labels)
    if not parts.has_probs:
        raise SettingsError(f"{labels} has no probs, which DARP refines: write them, as with PseudoLabelWriter's probs")
    if prices is not None:
        fitted = read_prices(Path(prices))
        _check_classes(Path(prices), fitted.class_names, parts.origin.class_names)
        errors = fitted.errors
    else:
        numbers = _numbers(target, parts.origin.class_names)
        fitted, converged = parts.fit(numbers, sample, alpha, tolerance, seed)
        if not converged:
            _warn_of(fitted.residual)
        errors = fitted.errors_for(parts.rows)
        _check_errors(fitted, errors, parts.rows, max_error)
    if save_prices is not None:
        write_prices(Path(save_prices), fitted)
    reached = None if output is None else parts.write_refined(output, fitted.prices)
    wanted = class_totals("target", fitted.prices.target.tolist(), len(errors), parts.rows)
    return Refinement(fitted, parts.rows, wanted, reached, errors)


def _check_arguments(
    output: object, target: object, prices: object, sample: int | None, save_prices: object, max_error: float
) -> None:
    if (target is None) == (prices is None):
        raise SettingsError("give either target, to fit prices, or prices that were fitted")
    if prices is not None and (sample is not None or save_prices is not None):
        raise SettingsError("prices are given: sample and save_prices are for a fit, with target")
    if output is None and save_prices is None:
        raise SettingsError("nothing would be written: give output, save_prices, or both")
    if sample is not None:
        check_count("sample", sample)
    check_positive("max_error", max_error)


def _numbers(target: str | Path | Sequence[float] | None, class_names: list[str]) -> Tensor:
    if isinstance(target, str | Path):
        return class_totals(f"{target}: counts", read_prior(Path(target), class_names), len(class_names), 1)
    check_each("target", target or (), check_at_least, 0)
    return class_totals("target", target or (), len(class_names), 1)


def _check_classes(path: Path, there: list[str], here: list[str]) -> None:
    if there != here:
        raise SettingsError(f"{path} is of other classes: {there[:10]}, and the pseudo-labels have {here[:10]}")


def _warn_of(residual: float) -> None:
    rank_zero_warn(
        f"DARP's target was not reached: a class total is off by {100 * residual:.3g}% of its target; "
        "predictions that are certain leave nothing to move"
    )


def _check_errors(fitted: FittedPrices, errors: Tensor, rows: int, max_error: float) -> None:
    """Refuse a sample that leaves too large a standard error; say how many rows would do."""
    worst = int(errors.argmax())
    error = float(errors[worst])
    if error <= max_error:
        return
    spread = float(fitted.errors[worst]) ** 2 * fitted.rows
    needed = math.ceil(1 / (max_error**2 / spread + 1 / rows))
    expected = float(fitted.prices.target[worst] / fitted.prices.target.sum()) * fitted.rows
    raise SettingsError(
        f"sample is {fitted.rows:,}, too few for the class {fitted.class_names[worst]}: {expected:.0f} rows of it are "
        f"expected, and its total would have a standard error of {100 * error:.2g}%; give a sample of at least "
        f"{needed:,} rows, or a max_error above {max_error}"
    )
