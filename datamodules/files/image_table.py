"""Images listed in a table, one row an image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.image_files import FileList, ImageFiles
from tailmatch.datamodules.files.table import Table, TableFormat, read_table
from tailmatch.datamodules.files.table_columns import (
    LEFT_OUT,
    SPLITS,
    category_codes,
    class_targets,
    rare_grouped,
    relative_paths,
    splits_of_rows,
    unlisted_files,
)
from tailmatch.datamodules.splitting.long_tail import LabeledFraction


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
        SettingsError: The table is no such table; it names row and column.
    """

    default_val_holdout = 0.1
    default_test_holdout = 0.2

    def __init__(
        self,
        table: str,
        root: str | None = None,
        *,
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
            raise SettingsError(
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
                raise SettingsError(f"{place}: an image of split {split!r} needs a target ({len(blank)} such rows)")
            if arguments.get(f"{split}_holdout"):
                raise SettingsError(
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
            raise SettingsError(f"{self.table.path} has no row of split 'train'")
        return lists
