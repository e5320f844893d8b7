"""Warnings about classes and a split, given before the training begins."""

from collections.abc import Mapping, Sequence

import numpy as np

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import ImageRows

NAMED = 5
"""How many classes or images a warning names; it counts the others."""


EMPTY_CELLS = {"nan", "none", "null", "<na>"}
"""What programs write for a cell without a value, in lower case."""


def name_warnings(class_names: Sequence[str]) -> list[str]:
    """Warn of class names that are probably slips: equal but for upper case or spaces, or what an empty cell becomes.

    Args:
        class_names: The names of the K classes.

    Returns:
        The warnings, one sentence each.
    """
    alike: dict[str, list[str]] = {}
    for name in class_names:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    same = [", ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    empty = [name for name in class_names if name.casefold() in EMPTY_CELLS]
    found = []
    if same:
        found.append(f"classes whose names differ only in upper case or spaces: {_some(same)}; use one spelling")
    if empty:
        found.append(f"a class is named {_some(empty)}; if its images have no class, leave their cells empty")
    return found


def split_warnings(table: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> list[str]:
    """Warn of classes that have too few images.

    Args:
        table: The number of images of each class in the set `labeled`, and in `validation` and `test` if they exist.
        class_names: The names of the K classes.

    Returns:
        The warnings, one sentence each.
    """
    labeled = table["labeled"]
    held_out = [name for name in ("validation", "test") if sum(table.get(name, ()))]
    found = [
        (
            "{} without a labeled image: never learned; label some, or leave the class out",
            [k for k, count in enumerate(labeled) if not count],
        ),
        (
            "{} with one labeled image: what is learned of it is that image; label more, or merge it with another",
            [k for k, count in enumerate(labeled) if count == 1],
        ),
    ]
    for name in held_out:
        found.append(
            (
                f"{{}} without a {name} image: too few to split, so its recall is not measured; collect more, hold out "
                "a larger share, or merge it with another",
                [k for k, count in enumerate(table[name]) if not count],
            )
        )
    return [text.format(_named([class_names[k] for k in classes])) for text, classes in found if classes]


def _named(names: list[str]) -> str:
    return f"{len(names)} {'class' if len(names) == 1 else 'classes'} ({_some(names)})"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def duplicate_warnings(sets: Mapping[str, ImageRows | None]) -> list[str]:
    """Warn of files with the same content in two sets: a test image that was trained on makes the figures too good.

    Args:
        sets: The rows of each set by its name. Sets without content digests are not compared, and no set is compared
            with itself.

    Returns:
        The warnings, one sentence each.
    """
    known = [(name, rows) for name, rows in sets.items() if rows is not None and rows.images.digests is not None]
    found = []
    for i, (name, rows) in enumerate(known):
        for other, others in known[i + 1 :]:
            if rows is others:
                continue
            shared = np.isin(_digests(others), _digests(rows)).nonzero()[0]
            if len(shared):
                keys = others.images.keys or ()
                examples = [keys[row] for row in others.rows[shared[:NAMED]].tolist()] if keys else []
                have = "image has" if len(shared) == 1 else "images have"
                found.append(
                    f"{len(shared)} {other} {have} the same content as a {name} image, which makes the figures "
                    f"too good: {', '.join(examples)}{' ...' if len(shared) > NAMED else ''}"
                )
    return found


def _digests(rows: ImageRows) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    digests = rows.images.digests
    if digests is None:
        raise SettingsError("these images have no content digests")
    chosen = np.ascontiguousarray(digests[rows.rows].numpy())
    return chosen.view(np.dtype((np.void, chosen.shape[1]))).reshape(-1)
