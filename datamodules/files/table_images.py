"""Read what a table says of its images: paths, classes, splits, categories."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tailmatch.datamodules.arguments import SettingsError, check_names
from tailmatch.datamodules.class_names import class_key, same_classes
from tailmatch.datamodules.files.image_files import FileList
from tailmatch.datamodules.files.table import Table, TableFormat, read_table
from tailmatch.datamodules.files.table_columns import (
    LEFT_OUT,
    SPLITS,
    Integers,
    category_codes,
    class_targets,
    rare_grouped,
    relative_paths,
    splits_of_rows,
    unlisted_files,
)


@dataclass(frozen=True)
class ColumnNames:
    """The columns of a table of images.

    Attributes:
        image: The column of paths.
        target: The column of classes.
        split: The column of splits. None: `split`, if the table has such a column.
        categories: The columns of categories.
    """

    image: str
    target: str
    split: str | None = None
    categories: Sequence[str] = ()


@dataclass(frozen=True)
class Pool:
    """Unlabeled images beside the table.

    Attributes:
        keys: The paths of the images, relative to the folder of the table's images.
        table: The table that lists them. None: they were found in a folder, or there are none.
    """

    keys: Sequence[str] = ()
    table: Table | None = None


@dataclass(frozen=True)
class TableImages:
    """The images of a table, N rows, and a pool of unlabeled ones.

    Attributes:
        table: The table.
        image_column: The name of its column of paths.
        keys: The N paths, relative to the folder of the images.
        class_names: The names of the K classes.
        targets: `int64 [N]`, the class of each row, -1 where it has none or its split is `unlabeled`.
        splits: `int64 [N]`, the index of each row's split in `SPLITS`, or `LEFT_OUT`.
        category_values: The values of each category column.
        categories: `int64 [N, L]`, the index of each row's value in each of the L columns, -1 for an empty cell. None:
            no category columns.
        pool: Further unlabeled images.
        notes: Warnings about the table.
    """

    table: Table
    image_column: str
    keys: Sequence[str]
    class_names: list[str]
    targets: Integers
    splits: Integers
    category_values: dict[str, list[str]]
    categories: Integers | None
    pool: Pool
    notes: tuple[str, ...] = ()

    @property
    def has_unlabeled(self) -> bool:
        """Whether some images have no class."""
        return bool(self.pool.keys) or bool((self.targets < 0).any())

    def rows(self, split: str) -> Integers:
        """Find the rows of a split of `SPLITS`, `int64 [n]`."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def describe(self, key: str) -> str | None:
        """Name the row that lists a path, for messages; None if no table lists it."""
        for table, keys in ((self.table, self.keys), (self.pool.table, self.pool.keys)):
            if table is not None and key in keys:
                return f"{table.place(keys.index(key), self.image_column)}: {key}"
        return None

    def with_names(self, names: Sequence[str]) -> "TableImages":
        """Take the order and the spelling of the classes from a list of the same ones; ignore a list of others."""
        if not same_classes(names, self.class_names):
            return self
        places = {class_key(name): k for k, name in enumerate(names)}
        numbers = np.array([*(places[class_key(name)] for name in self.class_names), -1])
        return replace(self, class_names=list(names), targets=numbers[self.targets])

    def file_lists(self) -> dict[str, FileList]:
        """List the files of `train` (with the unlabeled rows and the pool), and of `val` and `test` if they have rows.

        Raises:
            SettingsError: `train` has no images.
        """
        lists = {}
        for split in ("train", "val", "test"):
            rows, pool = self.rows(split), []
            if split == "train":
                rows, pool = np.union1d(rows, self.rows("unlabeled")), list(self.pool.keys)
            targets = torch.from_numpy(np.append(self.targets[rows], np.full(len(pool), -1)))
            categories = None
            if self.categories is not None:
                unknown = np.full((len(pool), self.categories.shape[1]), -1)
                categories = torch.from_numpy(np.concatenate([self.categories[rows], unknown]))
            if len(targets):
                lists[split] = FileList([self.keys[row] for row in rows] + pool, targets, categories)
        if "train" not in lists:
            raise SettingsError(f"{self.table.path} has no row of split 'train'")
        return lists


def read_images(
    path: Path,
    folder: Path,
    layout: TableFormat,
    columns: ColumnNames,
    *,
    image_suffix: str = "",
    unlabeled_table: Path | None = None,
    unlabeled_root: Path | None = None,
) -> TableImages:
    """Read a table of images.

    Args:
        path: The table.
        folder: The folder that its paths are relative to.
        layout: How tables of text are written.
        columns: The names of the columns.
        image_suffix: Appended to each path.
        unlabeled_table: A second table of the same layout, of unlabeled images.
        unlabeled_root: The folder of the second table's images. Without a second table: all images in this folder that
            the table does not list are unlabeled.

    Raises:
        MissingFileError: A table or the folder of unlabeled images is missing.
        SettingsError: A column is named twice, a table cannot be read, or a cell is wrong (the message names its row
            and column).
    """
    check_names("category_columns", columns.categories)
    levels = list(columns.categories)
    if len({columns.image, columns.target, *levels}) < 2 + len(levels):
        raise SettingsError(
            f"category_columns are {levels}, target_column is {columns.target!r} and image_column is "
            f"{columns.image!r}; name each column once"
        )
    needed = [columns.target, *levels, *([columns.split] if columns.split else [])]
    table = read_table(path, layout, columns.image, needed, [] if columns.split else ["split"])
    keys = relative_paths(table, columns.image, folder, folder, image_suffix)
    class_names, targets, notes = class_targets(table, columns.target)
    splits = splits_of_rows(table, columns.split or "split")
    targets[splits == SPLITS.index("unlabeled")] = -1
    _check_evaluation_rows(table, columns.target, targets, splits)
    pool = Pool()
    if unlabeled_table is not None:
        second = read_table(unlabeled_table, layout, columns.image)
        pool_folder = folder if unlabeled_root is None else unlabeled_root
        pool = Pool(relative_paths(second, columns.image, pool_folder, folder, image_suffix, set(keys)), second)
    elif unlabeled_root is not None:
        pool = Pool(unlisted_files(unlabeled_root, folder, set(keys)))
    values, categories, others = category_codes(table, levels)
    notes += others
    return TableImages(
        table, columns.image, keys, class_names, targets, splits, values, categories, pool=pool, notes=tuple(notes)
    )


def _check_evaluation_rows(table: Table, column: str, targets: Integers, splits: Integers) -> None:
    for split in ("val", "test"):
        blank = np.flatnonzero((splits == SPLITS.index(split)) & (targets < 0))
        if len(blank):
            place = table.place(int(blank[0]), column)
            raise SettingsError(f"{place}: an image of split {split!r} needs a target ({len(blank)} such rows)")


def group_rare_classes(images: TableImages, least: int, name: str) -> TableImages:
    """Put the classes with few images together; see `rare_grouped`.

    If even the group has fewer than `least` images, it is no class: its images become unlabeled, and those of the
    splits `val` and `test` are left out.

    Args:
        images: The images of a table.
        least: The number of images that a class needs.
        name: The name of the class that the others become.

    Raises:
        SettingsError: Another class has this name, or fewer than two classes are left.
    """
    class_names, targets, rare = rare_grouped(images.class_names, images.targets, least, name)
    if not rare:
        return images
    splits, became = images.splits, f"the class {name!r}"
    if name not in class_names:
        evaluated = np.isin(splits, [SPLITS.index("val"), SPLITS.index("test")])
        splits, became = np.where(evaluated & (targets < 0), LEFT_OUT, splits), "unlabeled: together they are too few"
    counts = ", ".join(f"{value} {count}" for value, count in rare.items())
    note = f"{len(rare)} classes have fewer than {least} images ({counts}); they are {became}"
    return replace(images, class_names=class_names, targets=targets, splits=splits, notes=(*images.notes, note))
