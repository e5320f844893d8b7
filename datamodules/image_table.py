"""Images listed in a table, one row an image."""

import os
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.image_files import FileList, ImageFiles
from datamodules.image_folder import image_files
from datamodules.long_tail import LabeledFraction
from datamodules.table import Table, TableFormat, read_table

SPLITS = ("train", "val", "test", "unlabeled")
LEFT_OUT = len(SPLITS)
"""In the place of a split: of rows that are not used."""

Integers = NDArray[np.int64]

INTEGER = re.compile(r"(-?\d+)(?:\.0*)?")
"""A number as a class: also `3.0`, which programs write for whole numbers in a column with empty cells."""


class ImageTable(ImageFiles):
    """A CSV, TSV or Parquet file with a row for each image, and the folder that its paths are relative to.

    Classes are the values of the target column, sorted: by number if all are numbers, else as text. An image whose
    target is empty or -1, or whose split is `unlabeled`, joins the unlabeled set. Without a split column, all rows are
    `train`; an empty cell is `train` too.

    Args:
        table: The file. `.csv`, `.tsv`, `.txt` (with spaces) or `.parquet`.
        root: Folder of the images; None: the table's.
        image_column: Name of the column with their paths.
        target_column: Name of the column with their classes, as text or as numbers.
        split_column: Name of the column with `train`, `val`, `test` or `unlabeled`; None: `split`, if there is one.
        min_class_count: Classes with fewer images than this in the whole table become one class, `rare_class`, the last
            one. If that has fewer too, its images count as unlabeled, and those of the splits `val` and `test` are
            left out.
        rare_class: Its name.
        category_columns: Names of columns with other things that are known of each image; batches carry them as
            `categories`, and `category_values` has their values (a `CategoryNetwork` learns from them).
        columns: Names of the columns of a file without header.
        delimiter: Between cells; None: by the table's suffix.
        encoding: Of the table; the default is UTF-8, with or without a byte order mark.
        image_suffix: What the image column leaves out, for example `.jpg`.
        unlabeled_table: Another table of the same format, of unlabeled images; only its image column is read.
        unlabeled_root: Folder of the unlabeled table's images; without such a table, all images in it are unlabeled,
            but those that the table lists.
        **kwargs: The arguments of `ImageFiles`, with other defaults where the table asks for them: `val_holdout` is 0.1
            and `test_holdout` 0.2 unless the table has such a split, and `class_counts` labels all images that have
            a target if there are others that have none.

    Raises:
        ValueError: The table is no such table; it names row and column.
    """

    default_val_holdout = 0.1
    default_test_holdout = 0.2

    def __init__(
        self,
        table: str,
        root: str | None = None,
        image_column: str = "image",
        target_column: str = "target",
        split_column: str | None = None,
        min_class_count: int = 1,
        rare_class: str = "other",
        category_columns: list[str] | None = None,
        columns: list[str] | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8-sig",
        image_suffix: str = "",
        unlabeled_table: str | None = None,
        unlabeled_root: str | None = None,
        **kwargs: Any,
    ) -> None:
        folder = Path(table).parent if root is None else Path(root)
        layout = TableFormat(columns, delimiter, encoding)
        levels = category_columns or []
        if len({target_column, *levels}) <= len(levels):
            raise ValueError(
                f"category_columns are {levels} and target_column is {target_column!r}; name each column once"
            )
        needed = [target_column, *levels, *([split_column] if split_column else [])]
        self.table = read_table(Path(table), layout, image_column, needed, [] if split_column else ["split"])
        self.image_column = image_column
        self.keys = relative_paths(self.table, image_column, folder, folder, image_suffix)
        self.class_names, self.targets = class_targets(self.table, target_column)
        self.splits = splits_of_rows(self.table, split_column or "split")
        self.targets[self.splits == SPLITS.index("unlabeled")] = -1
        self._check_evaluation_rows(target_column, kwargs)
        self.category_values, self.categories = category_codes(self.table, levels)
        self.pool_keys: list[str] = []
        self.pool_table: Table | None = None
        if unlabeled_table is not None:
            pool = Path(unlabeled_root) if unlabeled_root is not None else folder
            self.pool_table = read_table(Path(unlabeled_table), layout, image_column)
            self.pool_keys = relative_paths(self.pool_table, image_column, pool, folder, image_suffix, set(self.keys))
        elif unlabeled_root is not None:
            self.pool_keys = unlisted_files(Path(unlabeled_root), folder, set(self.keys))
        if kwargs.get("class_counts") is None and (self.pool_keys or (self.targets < 0).any()):
            kwargs["class_counts"] = LabeledFraction(1.0)
        self._notes: list[str] = []
        if min_class_count > 1:
            self._group_rare_classes(min_class_count, rare_class)
        super().__init__(str(folder), **kwargs)

    def _check_evaluation_rows(self, target_column: str, arguments: dict[str, Any]) -> None:
        """Refuse rows to evaluate on without target, and a holdout beside a split; set the default holdouts."""
        for split in ("val", "test"):
            rows = (self.splits == SPLITS.index(split)).nonzero()[0]
            if not len(rows):
                continue
            blank = rows[self.targets[rows] < 0]
            if len(blank):
                place = self.table.place(int(blank[0]), target_column)
                raise ValueError(f"{place}: an image of split {split!r} needs a target ({len(blank)} such rows)")
            if arguments.get(f"{split}_holdout"):
                raise ValueError(
                    f"{split}_holdout is {arguments[f'{split}_holdout']}, and {self.table.path} has {len(rows)} rows "
                    f"of split {split!r}: leave one of them out"
                )
            setattr(self, f"default_{split}_holdout", 0)

    def _group_rare_classes(self, least: int, name: str) -> None:
        before = self.class_names
        self.class_names, self.targets, rare = rare_grouped(before, self.targets, least, name)
        if rare and name not in self.class_names:
            evaluated = np.isin(self.splits, [SPLITS.index("val"), SPLITS.index("test")])
            self.splits[evaluated & (self.targets < 0)] = LEFT_OUT
        if rare:
            counts = ", ".join(f"{value} {count}" for value, count in rare.items())
            became = f"the class {name!r}" if name in self.class_names else "unlabeled: together they are too few"
            self._notes = [f"{len(rare)} classes have fewer than {least} images ({counts}); they are {became}"]

    def warnings(self) -> list[str]:
        """See `LabeledUnlabeledDataModule.warnings`; classes that were put together too."""
        return self._notes + super().warnings()

    def describe(self, key: str) -> str:
        """See `ImageFiles.describe`: the row that lists the file."""
        for table, keys in ((self.table, self.keys), (self.pool_table, self.pool_keys)):
            if table is not None and key in keys:
                return f"{table.place(keys.index(key), self.image_column)}: {key}"
        return super().describe(key)

    def list_files(self) -> dict[str, FileList]:
        """See `ImageFiles.list_files`."""
        lists = {}
        for split in ("train", "val", "test"):
            chosen = self.splits == SPLITS.index(split)
            if split == "train":
                chosen |= self.splits == SPLITS.index("unlabeled")
            rows = chosen.nonzero()[0]
            pool = self.pool_keys if split == "train" else []
            targets = torch.from_numpy(np.append(self.targets[rows], np.full(len(pool), -1)))
            categories = None
            if self.categories is not None:
                unknown = np.full((len(pool), self.categories.shape[1]), -1)
                categories = torch.from_numpy(np.concatenate([self.categories[rows], unknown]))
            if len(targets):
                lists[split] = FileList([self.keys[row] for row in rows] + pool, targets, categories)
        if "train" not in lists:
            raise ValueError(f"{self.table.path} has no row of split 'train'")
        return lists


def relative_paths(
    table: Table, column: str, folder: Path, root: Path, suffix: str = "", taken: AbstractSet[str] = frozenset()
) -> list[str]:
    """Paths of a table's images relative to `root`, normalized.

    Args:
        table: The table.
        column: Its image column, for messages.
        folder: What the paths in the table are relative to; they must not leave it.
        root: What the result is relative to.
        suffix: Appended to each path.
        taken: Paths that another table lists.

    Raises:
        ValueError: A cell is empty, leaves the folder, or is there twice.
    """
    inside = "" if folder == root else os.path.relpath(folder, root).replace(os.sep, "/") + "/"
    absolute = os.path.abspath(folder)
    keys = []
    for index, cell in enumerate(table.images):
        path = cell + suffix
        if ".." in path or "./" in path or "//" in path or path[:1] == "/" or not cell:
            if not cell:
                raise ValueError(f"{table.place(index, column)} is empty; it must be the path of an image")
            path = os.path.relpath(os.path.join(absolute, path), absolute).replace(os.sep, "/")
            if path.startswith("../"):
                raise ValueError(f"{table.place(index, column)}: {cell!r} leaves the folder {absolute}")
        keys.append(inside + path)
    if len(set(keys)) < len(keys) or not taken.isdisjoint(keys):
        seen: dict[str, int] = {}
        for index, key in enumerate(keys):
            if key in seen or key in taken:
                where = f"row {seen[key] + table.first_row}" if key in seen else "the other table"
                raise ValueError(f"{table.place(index, column)}: {key!r} is in {where} too; list each image once")
            seen[key] = index
    return keys


def unlisted_files(folder: Path, root: Path, listed: AbstractSet[str]) -> list[str]:
    """Image files in a folder that the table does not list, relative to `root`.

    Raises:
        FileNotFoundError: The folder is missing.
        ValueError: There are none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"unlabeled_root {folder.resolve()} is no folder")
    found = image_files(root, os.path.relpath(folder, root).replace(os.sep, "/"))
    unlisted = [key for key in found if key not in listed]
    if not unlisted:
        raise ValueError(f"unlabeled_root {folder.resolve()} has no images but those of the table")
    return unlisted


def class_targets(table: Table, column: str) -> tuple[list[str], Integers]:
    """Class names, sorted, and the class of each row, `int64 [N]`, -1 where there is none.

    Raises:
        ValueError: Some targets are numbers and some text, a number is below -1, or none is given.
    """
    coded = table.coded[column]
    names = [_class_name(value) for value in coded.values]
    numbers = {name for name in names if INTEGER.fullmatch(name)}
    texts = set(names) - numbers - {""}
    if numbers - {"-1"} and texts:
        number, text = (
            min(
                (value for value, name in zip(coded.values, names, strict=True) if name in group), key=coded.first_index
            )
            for group in (numbers - {"-1"}, texts)
        )
        raise ValueError(
            f"{table.first_place(column, text)}: {text!r} is text, and {number!r} (row "
            f"{coded.first_index(number) + table.first_row}) is a number; write all classes in one way"
        )
    for value, name in zip(coded.values, names, strict=True):
        if name in numbers and int(name) < -1:
            raise ValueError(f"{table.first_place(column, value)}: {value!r} is below -1, which stands for unlabeled")
    classes = sorted(texts) or sorted(numbers - {"-1"}, key=int)
    if not classes:
        raise ValueError(f"{table.path}: column {column!r} has no class in any row")
    places = {name: k for k, name in enumerate(classes)}
    return classes, coded.translate([places.get(name, -1) for name in names])


def rare_grouped(
    class_names: list[str], targets: Integers, least: int, name: str
) -> tuple[list[str], Integers, dict[str, int]]:
    """Put the classes with few images together.

    Args:
        class_names: K names.
        targets: `int64 [N]`, -1 where there is no class.
        least: Images that a class needs.
        name: Of the class that the others become.

    Returns:
        The names, the group's last if it has `least` images; the targets, -1 in the group if it has not; and the
        classes that were put together, with their numbers of images.

    Raises:
        ValueError: A class that stays has that name, or less than two classes are left.
    """
    counts = np.bincount(targets[targets >= 0], minlength=len(class_names))
    rare = {class_names[k]: int(counts[k]) for k in np.flatnonzero(counts < least)}
    kept = [value for value in class_names if value not in rare]
    if name in kept and rare:
        raise ValueError(f"rare_class is {name!r}, and a class with {least} images or more has that name: give another")
    grouped = bool(rare) and sum(rare.values()) >= least
    names = kept + [name] if grouped else kept
    if len(names) < 2:
        raise ValueError(
            f"min_class_count is {least}, which leaves the classes {names}; the largest have "
            f"{sorted(counts.tolist(), reverse=True)[:5]} images"
        )
    places = [kept.index(value) if value in kept else len(kept) if grouped else -1 for value in class_names]
    return names, np.array([*places, -1], dtype=np.int64)[targets], rare


def _class_name(value: str) -> str:
    number = INTEGER.fullmatch(value)
    return str(int(number[1])) if number else value


def splits_of_rows(table: Table, column: str) -> Integers:
    """Place of each row's split in `SPLITS`, `int64 [N]`.

    Raises:
        ValueError: A cell names no split.
    """
    coded = table.coded.get(column)
    if coded is None:
        return np.zeros(len(table.images), dtype=np.int64)
    for value in coded.values:
        if value not in (*SPLITS, ""):
            raise ValueError(
                f"{table.first_place(column, value)}: {value!r} is no split; there are {', '.join(SPLITS)}"
            )
    return coded.translate([SPLITS.index(value or "train") for value in coded.values])


def category_codes(table: Table, columns: Sequence[str]) -> tuple[dict[str, list[str]], Integers | None]:
    """Sorted values of each column, and each row's places in them, `int64 [N, L]`, -1 for an empty cell."""
    names, codes = {}, []
    for column in columns:
        coded = table.coded[column]
        values = sorted(set(coded.values) - {""})
        places = {value: place for place, value in enumerate(values)}
        names[column] = values
        codes.append(coded.translate([places.get(value, -1) for value in coded.values]))
    return names, np.stack(codes, axis=1) if codes else None
