"""Which images are labeled, unlabeled, validation and test: a function of the seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.batches import generator
from tailmatch.datamodules.splitting.long_tail import ClassCounts

SPLIT_STREAM = 0
"""Stream number of the split's random generator; `tailmatch.datamodules.batches` numbers the others."""


@dataclass(frozen=True)
class Split:
    """Rows of the training pool, each `int64 [n]`, disjoint; empty where nothing is held out."""

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
    """Draw disjoint rows for the four sets, class by class.

    Each class' rows are permuted by the seed; the first go to test, then validation, then labeled, then
    unlabeled. So the held-out images do not change with the class counts, nor with a separate unlabeled pool.
    Rows without a class (target -1) are all unlabeled, after the drawn ones.

    Args:
        targets: `int64 [N]`, classes of the pool; -1 is unknown.
        class_names: K names, for messages.
        class_counts: Says how many labeled and unlabeled images each class gives.
        val_holdout: Images per class (int) or share of every class (float below 1) held out for validation.
        test_holdout: The same for test.
        seed: Seed of the draw.
        labeled_holdout: Labeled images of every class that are held out; the other sets stay as they are.
        unlabeled_from: First row of a separate pool, the only one that unlabeled images of a class are drawn from;
            None: they are drawn from what the labeled ones leave.

    Raises:
        SettingsError: A class has fewer images than are asked of it (names class, wanted, available).
    """
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
    """Rows of each class from `start` on, permuted with random numbers that no other set is drawn with."""
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


def _held_out(name: str, holdout: int | float, available: int, class_name: str) -> int:
    if not holdout >= 0 or (isinstance(holdout, float) and holdout >= 1):
        raise SettingsError(f"{name} is {holdout}; it must be images per class (0, 1, 2, ...) or a share in [0, 1)")
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
