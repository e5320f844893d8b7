"""Target class totals of the unlabeled set, from a prior that is given or assumed."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import MissingFileError, SettingsError, check_at_least, check_each, check_names

if TYPE_CHECKING:  # files of pseudo-labels are refined without Lightning
    from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule

ORACLE = "oracle"

MOST_BYTES = 10_000_000
"""The largest prior file that is read; a class takes 40 bytes."""


def unlabeled_totals(source: str | Sequence[float] | None, data: "LabeledUnlabeledDataModule") -> Tensor:
    """Compute the class totals of the unlabeled set.

    Args:
        source: The prior. None: the totals are in proportion to the labeled counts, without those of `added_labels`. K
            numbers: in proportion to these. `oracle`: the true totals, for analysis. Any other text: the path of a file
            written by `UnlabeledPriorEstimator`.
        data: The data module, after `setup`.

    Returns:
        Class totals `float64 [K]`, whose sum is the size of the unlabeled set.

    Raises:
        SettingsError: An entry is negative, there are not K entries, or their sum is 0; or the source is `oracle` and
            the class of some unlabeled images is not known; or the file is not a prior of the same classes.
        MissingFileError: The file does not exist.
    """
    name = "target"
    if source is None:
        values: Sequence[float] = data.annotated_counts
    elif source == ORACLE:
        values = _truth(data)
    elif isinstance(source, str):
        name, values = f"{source}: counts", read_prior(Path(source), data.class_names)
    else:
        check_target(source)
        values = source
    return class_totals(name, values, data.num_classes, len(data.unlabeled))


def class_totals(name: str, values: Sequence[float], classes: int, rows: int) -> Tensor:
    """Scale numbers to class totals.

    Args:
        name: The name of the numbers in messages.
        values: Non-negative numbers.
        classes: The number K of classes.
        rows: The sum of the totals.

    Returns:
        `float64 [K]`.

    Raises:
        SettingsError: There are not K numbers, or their sum is 0 or infinite.
    """
    if len(values) != classes:
        raise SettingsError(f"{name} has {len(values)} entries; it needs one for each of {classes} classes")
    totals = torch.tensor(values, dtype=torch.float64)
    if not 0 < totals.sum() < math.inf:
        raise SettingsError(f"{name} is {list(values)}; its sum must be above 0 and finite")
    return totals * (rows / totals.sum())


def check_target(target: str | Sequence[float] | None) -> None:
    """Refuse a list of class totals with an entry that is none; `unlabeled_totals` checks the rest.

    Raises:
        SettingsError: An entry is negative, not finite or no number.
    """
    if target is not None and not isinstance(target, str):
        check_each("target", target, check_at_least, 0)


def is_known(data: "LabeledUnlabeledDataModule") -> bool:
    """Tell whether the class of every unlabeled image is known, as in subsampled benchmarks."""
    return bool((data.unlabeled.targets >= 0).all())


def _truth(data: "LabeledUnlabeledDataModule") -> list[float]:
    if not is_known(data):
        raise SettingsError("target is oracle, and the class of some unlabeled images is not known")
    counts: list[float] = torch.bincount(data.unlabeled.targets, minlength=data.num_classes).tolist()
    return counts


def read_prior(path: Path, class_names: list[str]) -> list[float]:
    """Read the class counts of a file that `UnlabeledPriorEstimator` wrote.

    Raises:
        MissingFileError: The file does not exist.
        SettingsError: The file is no prior, or one of other classes.
    """
    if not path.is_file():
        raise MissingFileError(f"no prior file {path}: give null, oracle, a list, or a file of UnlabeledPriorEstimator")
    if path.stat().st_size > MOST_BYTES:
        raise SettingsError(f"{path} has {path.stat().st_size:,} bytes; a prior file has at most {MOST_BYTES:,}")
    try:
        prior: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        counts: list[float] = prior["counts"]
        names = prior["class_names"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SettingsError(f"{path} is no prior file (counts and class_names in JSON): {error!r}") from error
    check_each(f"{path}: counts", counts, check_at_least, 0)
    check_names(f"{path}: class_names", names)
    if names != class_names:
        raise SettingsError(f"{path} is of other classes: {names[:10]}, and the data has {class_names[:10]}")
    return counts
