"""Draw which images are labeled, unlabeled, validation and test, as a function of the seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.batches import generator
from tailmatch.datamodules.splitting.long_tail import ClassCounts

SPLIT_STREAM = 0
"""The number of the split's random stream; `tailmatch.datamodules.batches` has the numbers of the others."""


@dataclass(frozen=True)
class Split:
    """Disjoint rows of the training pool, each `int64 [n]`; a set that nothing is held out for is empty."""

    labeled: Tensor
    labeled_holdout: Tensor
    unlabeled: Tensor
    val: Tensor
    test: Tensor


def draw_split(
    targets: Tensor,
    class_names: Sequence[str],
    class_counts: ClassCounts,
    *,
    val_holdout: int | float,
    test_holdout: int | float,
    seed: int,
    labeled_holdout: int = 0,
    unlabeled_from: int | None = None,
) -> Split:
    """Draw disjoint rows for each set, class by class.

    The rows of each class are permuted by the seed. The first go to test, the next to validation, then to labeled, then
    to unlabeled, so that the held-out images change neither with the class counts nor with a separate unlabeled pool.
    All rows without a class are unlabeled; they come after the drawn ones.

    Args:
        targets: `int64 [N]`, the class of each image of the pool, -1 where it is unknown.
        class_names: The names of the K classes, for messages.
        class_counts: The rule that gives the number of labeled and unlabeled images of each class.
        val_holdout: How many images are held out for validation: a number for each class (int) or a share of each class
            (float below 1).
        test_holdout: How many images are held out for the test, like `val_holdout`.
        seed: The seed of the split.
        labeled_holdout: How many labeled images of each class are held out; the other sets do not change.
        unlabeled_from: The first row of a separate pool, from which all unlabeled images with a class are drawn. None:
            they are drawn from the images that are not labeled.

    Raises:
        SettingsError: A class has too few images; the message names it, how many are wanted and how many there are.
    """
    check_holdout("val_holdout", val_holdout)
    check_holdout("test_holdout", test_holdout)
    num_classes = len(class_names)
    _check_targets(targets, class_names)
    random = generator(seed, SPLIT_STREAM)
    available, pools = [], []
    parts: dict[str, list[Tensor]] = {"test": [], "val": []}
    for k in range(num_classes):
        rows = (targets[:unlabeled_from] == k).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=random)]
        test = _held_out("test_holdout", test_holdout, len(rows), class_names[k])
        val = _held_out("val_holdout", val_holdout, len(rows) - test, class_names[k])
        parts["test"].append(rows[:test])
        parts["val"].append(rows[test : test + val])
        pools.append(rows[test + val :])
        available.append(len(pools[k]))

    labeled, unlabeled = class_counts.counts(available)
    separate = None if unlabeled_from is None else _separate_pools(targets, num_classes, unlabeled_from, seed)
    parts |= {"labeled": [], "labeled_holdout": [], "unlabeled": []}
    for k, rows in enumerate(pools):
        rest = rows[labeled[k] :] if separate is None else separate[k]
        wanted = len(rest) if unlabeled is None else unlabeled[k]
        shares = (labeled[k], wanted if separate is None else 0, labeled_holdout)
        _check_class(class_names[k], *shares, available=len(rows), held_out=(val_holdout, test_holdout))
        if wanted > len(rest):
            raise SettingsError(
                f"class {class_names[k]!r}: wanted {wanted} unlabeled images, available {len(rest)} in the separate "
                "unlabeled pool; ask for fewer"
            )
        kept = labeled[k] - labeled_holdout
        parts["labeled"].append(rows[:kept])
        parts["labeled_holdout"].append(rows[kept : labeled[k]])
        parts["unlabeled"].append(rest[:wanted])
    parts["unlabeled"].append((targets < 0).nonzero().squeeze(1))
    return Split(**{name: torch.cat(rows) for name, rows in parts.items()})


def _separate_pools(targets: Tensor, num_classes: int, start: int, seed: int) -> list[Tensor]:
    """Permute the rows of each class from `start` on, with random numbers that no other set is drawn with."""
    random = generator(seed, SPLIT_STREAM, 1)
    pools = []
    for k in range(num_classes):
        rows = start + (targets[start:] == k).nonzero().squeeze(1)
        pools.append(rows[torch.randperm(len(rows), generator=random)])
    return pools


def _check_class(
    name: str, labeled: int, unlabeled: int, labeled_holdout: int, *, available: int, held_out: tuple[float, float]
) -> None:
    if labeled + unlabeled > available:
        raise SettingsError(
            f"class {name!r}: wanted {labeled} labeled + {unlabeled} unlabeled = {labeled + unlabeled} images, "
            f"available {available} after holding out val_holdout={held_out[0]} and test_holdout={held_out[1]}; "
            "ask for fewer or hold out fewer"
        )
    if labeled_holdout and labeled <= labeled_holdout:
        raise SettingsError(
            f"class {name!r}: labeled_holdout wants {labeled_holdout} of {labeled} labeled images, and none would be "
            "left to train on; hold out fewer"
        )


def check_holdout(name: str, holdout: int | float) -> None:
    """Refuse what is neither a number of images (int) nor a share below 1 (float).

    Raises:
        SettingsError: The value is neither.
    """
    if (
        isinstance(holdout, bool)
        or not isinstance(holdout, int | float)
        or not 0 <= holdout < (1 if isinstance(holdout, float) else math.inf)
    ):
        raise SettingsError(f"{name} is {holdout!r}; it must be images per class (0, 1, 2, ...) or a share in [0, 1)")


def _held_out(name: str, holdout: int | float, available: int, class_name: str) -> int:
    count = round(holdout * available) if isinstance(holdout, float) else holdout
    if count > available:
        raise SettingsError(
            f"class {class_name!r}: {name} wants {count} images, available {available}; "
            "a share such as 0.1 fits classes of any size"
        )
    return count


def _check_targets(targets: Tensor, class_names: Sequence[str]) -> None:
    bad = ((targets >= len(class_names)) | (targets < -1)).nonzero().squeeze(1)
    if len(bad):
        raise SettingsError(
            f"label {int(targets[bad[0]])} of image {int(bad[0])} is outside the range: there are "
            f"{len(class_names)} classes, so 0 to {len(class_names) - 1}, or -1 for unlabeled "
            f"({len(bad)} such labels)"
        )
