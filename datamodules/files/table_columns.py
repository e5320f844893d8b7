"""Turn the columns of a table of images into paths, classes, splits and categories."""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.class_names import class_key, clean_name, sorted_names
from tailmatch.datamodules.files.listing import image_files
from tailmatch.datamodules.files.table import Table

SPLITS = ("train", "val", "test", "unlabeled")
LEFT_OUT = len(SPLITS)
"""The number that stands instead of a split for rows that are not used."""

NAMED = 5
"""How many values, and spellings of each, a warning names."""

Integers = NDArray[np.int64]

INTEGER = re.compile(r"(-?\d+)(?:\.0*)?")
"""A number that names a class: also `3.0`, which programs write for whole numbers in a column with empty cells."""


def relative_paths(
    table: Table, column: str, folder: Path, root: Path, suffix: str = "", taken: AbstractSet[str] = frozenset()
) -> list[str]:
    """Compute the normalized paths of a table's images, relative to `root`.

    Args:
        table: The table.
        column: The name of its image column, for messages.
        folder: The folder that the paths in the table are relative to; they must not leave it.
        root: The folder that the results are relative to.
        suffix: A suffix to append to each path.
        taken: The paths that another table lists.

    Raises:
        SettingsError: A cell is empty, its path leaves the folder, or a path is listed twice.
    """
    inside = "" if folder == root else os.path.relpath(folder, root).replace(os.sep, "/") + "/"
    absolute = os.path.abspath(folder)
    keys = []
    for index, cell in enumerate(table.images):
        path = cell + suffix
        if ".." in path or "./" in path or "//" in path or path[:1] == "/" or not cell:
            if not cell:
                raise SettingsError(f"{table.place(index, column)} is empty; it must be the path of an image")
            path = os.path.relpath(os.path.join(absolute, path), absolute).replace(os.sep, "/")
            if path.startswith("../"):
                raise SettingsError(f"{table.place(index, column)}: {cell!r} leaves the folder {absolute}")
        keys.append(inside + path)
    if len(set(keys)) < len(keys) or not taken.isdisjoint(keys):
        seen: dict[str, int] = {}
        for index, key in enumerate(keys):
            if key in seen or key in taken:
                where = f"row {seen[key] + table.first_row}" if key in seen else "the other table"
                raise SettingsError(f"{table.place(index, column)}: {key!r} is in {where} too; list each image once")
            seen[key] = index
    return keys


def unlisted_files(folder: Path, root: Path, listed: AbstractSet[str]) -> list[str]:
    """List the image files in a folder that are not in `listed`, relative to `root`.

    Raises:
        MissingFileError: The folder is missing.
        SettingsError: There are no such files.
    """
    if not folder.is_dir():
        raise MissingFileError(f"unlabeled_root {folder.resolve()} is no folder")
    found = image_files(root, os.path.relpath(folder, root).replace(os.sep, "/"))
    unlisted = [key for key in found if key not in listed]
    if not unlisted:
        raise SettingsError(f"unlabeled_root {folder.resolve()} has no images but those of the table")
    return unlisted


def class_targets(table: Table, column: str) -> tuple[list[str], Integers, list[str]]:
    """Read the class of each row.

    Cells that differ only in spaces, in how accents are encoded or in leading zeros are one class (see `class_key`).

    Returns:
        The sorted names of the K classes; `int64 [N]`, the class of each row, -1 where it has none; and warnings.

    Raises:
        SettingsError: Some targets are numbers and some text, a number is below -1, or none is given.
    """
    coded = table.coded[column]
    cells = {value: _class_name(value) for value in coded.values}
    keys = {value: class_key(name) for value, name in cells.items()}
    numbers = [value for value, key in keys.items() if isinstance(key, int) and key != -1]
    texts = [value for value, key in keys.items() if isinstance(key, str) and key]
    if numbers and texts:
        number, text = (min(group, key=coded.first_index) for group in (numbers, texts))
        raise SettingsError(
            f"{table.first_place(column, text)}: {text!r} is text, and {number!r} (row "
            f"{coded.first_index(number) + table.first_row}) is a number; write all classes in one way"
        )
    for value in numbers:
        if int(cells[value]) < -1:
            raise SettingsError(
                f"{table.first_place(column, value)}: {value!r} is below -1, which stands for unlabeled"
            )
    spellings: dict[str | int, list[str]] = {}
    for value in numbers or texts:
        spellings.setdefault(keys[value], []).append(value)
    if not spellings:
        raise SettingsError(f"{table.path}: column {column!r} has no class in any row")
    names = {key: max((cells[value] for value in group), key=len) for key, group in spellings.items()}
    classes = sorted_names(names.values())
    places = {class_key(name): k for k, name in enumerate(classes)}
    return classes, coded.translate([places.get(keys[v], -1) for v in coded.values]), _merged(table, column, spellings)


def _merged(table: Table, column: str, spellings: Mapping[str | int, Sequence[str]]) -> list[str]:
    """Warn of values that several spellings name; `3` and `3.0` count as one."""
    several = [group for group in spellings.values() if len({INTEGER.sub(r"\1", value) for value in group}) > 1]
    if not several:
        return []
    shown = "; ".join(" = ".join(_told_apart(group[:NAMED])) for group in several[:NAMED])
    values = "one value" if len(several) == 1 else f"{len(several)} values"
    return [
        f"{table.path}: column {column!r} has {values} in several spellings (spaces, accents, leading zeros), taken as "
        f"the same: {shown}{'; ...' if len(several) > NAMED else ''}"
    ]


def _told_apart(values: Sequence[str]) -> list[str]:
    """Quote values, with escapes where they would look the same."""
    same = len({unicodedata.normalize("NFC", value) for value in values}) < len(values)
    return list(map(ascii if same else repr, values))


def rare_grouped(
    class_names: list[str], targets: Integers, least: int, name: str
) -> tuple[list[str], Integers, dict[str, int]]:
    """Put the classes with few images together into a group.

    Args:
        class_names: The names of the K classes.
        targets: `int64 [N]`, the class of each row, -1 where it has none.
        least: The number of images that a class needs.
        name: The name of the group.

    Returns:
        The new class names, with the group's at the end if it has `least` images; the new targets, -1 for the images of
        a smaller group; and the name and number of images of each class that is in the group.

    Raises:
        SettingsError: A class that stays has the name of the group, or fewer than two classes are left.
    """
    counts = np.bincount(targets[targets >= 0], minlength=len(class_names))
    rare = {class_names[k]: int(counts[k]) for k in np.flatnonzero(counts < least)}
    kept = [value for value in class_names if value not in rare]
    if name in kept and rare:
        raise SettingsError(
            f"rare_class is {name!r}, and a class with {least} images or more has that name: give another"
        )
    grouped = bool(rare) and sum(rare.values()) >= least
    names = kept + [name] if grouped else kept
    if len(names) < 2:
        raise SettingsError(
            f"min_class_count is {least}, which leaves the classes {names}; the largest have "
            f"{sorted(counts.tolist(), reverse=True)[:5]} images"
        )
    places = [kept.index(value) if value in kept else len(kept) if grouped else -1 for value in class_names]
    return names, np.array([*places, -1], dtype=np.int64)[targets], rare


def _class_name(value: str) -> str:
    """Return the name in a cell; a number keeps its leading zeros."""
    name = clean_name(value)
    number = INTEGER.fullmatch(name)
    return number[1] if number else name


def splits_of_rows(table: Table, column: str) -> Integers:
    """Read the split of each row: its index in `SPLITS`, `int64 [N]`.

    Raises:
        SettingsError: A cell names no split.
    """
    coded = table.coded.get(column)
    if coded is None:
        return np.zeros(len(table.images), dtype=np.int64)
    for value in coded.values:
        if value not in (*SPLITS, ""):
            raise SettingsError(
                f"{table.first_place(column, value)}: {value!r} is no split; there are {', '.join(SPLITS)}"
            )
    return coded.translate([SPLITS.index(value or "train") for value in coded.values])


def category_codes(table: Table, columns: Sequence[str]) -> tuple[dict[str, list[str]], Integers | None, list[str]]:
    """Read the category columns; cells that differ only in spaces or in how accents are encoded are one value.

    Returns:
        The sorted values of each of the L columns; `int64 [N, L]`, the index of each row's value among them, -1 for an
        empty cell, or None if there are no columns; and warnings.
    """
    names, codes, notes = {}, [], []
    for column in columns:
        coded = table.coded[column]
        spellings: dict[str, list[str]] = {}
        for value in coded.values:
            spellings.setdefault(clean_name(value), []).append(value)
        values = sorted(spellings.keys() - {""})
        places = {value: place for place, value in enumerate(values)}
        names[column] = values
        codes.append(coded.translate([places.get(clean_name(value), -1) for value in coded.values]))
        notes += _merged(table, column, {value: spellings[value] for value in values})
    return names, np.stack(codes, axis=1) if codes else None, notes
