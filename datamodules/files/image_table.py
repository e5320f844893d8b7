"""Images listed in a table, one row an image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.image_files import FileList, ImageFiles
from tailmatch.datamodules.files.table import TableFormat
from tailmatch.datamodules.files.table_images import ColumnNames, TableImages, group_rare_classes, read_images
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
        images = read_images(
            Path(table),
            folder,
            TableFormat(columns, delimiter, encoding),
            ColumnNames(image_column, target_column, split_column, category_columns or ()),
            image_suffix=image_suffix,
            unlabeled_table=None if unlabeled_table is None else Path(unlabeled_table),
            unlabeled_root=None if unlabeled_root is None else Path(unlabeled_root),
        )
        decided = _decided_by_table(images, kwargs)
        self.images = group_rare_classes(images, min_class_count, rare_class) if min_class_count > 1 else images
        self.class_names = self.images.class_names
        self.category_values = self.images.category_values
        super().__init__(str(folder), **kwargs | decided)

    def warnings(self) -> list[str]:
        """See `LabeledUnlabeledDataModule.warnings`; also says which classes were put together."""
        return [*self.images.notes, *super().warnings()]

    def describe(self, key: str) -> str:
        """See `ImageFiles.describe`: the row that lists the file."""
        return self.images.describe(key) or super().describe(key)

    def list_files(self) -> dict[str, FileList]:
        """See `ImageFiles.list_files`."""
        return self.images.file_lists()


def _decided_by_table(images: TableImages, given: Mapping[str, Any]) -> dict[str, Any]:
    """Work out the arguments of `ImageFiles` that follow from the table.

    A split of the table replaces the holdout of that name. Beside unlabeled images, all other images are labeled unless
    `class_counts` is given.

    Raises:
        SettingsError: A holdout is given for a split that the table has.
    """
    decided: dict[str, Any] = {}
    for split in ("val", "test"):
        name, rows = f"{split}_holdout", len(images.rows(split))
        if rows and given.get(name):
            raise SettingsError(
                f"{name} is {given[name]}, and {images.table.path} has {rows} rows of split {split!r}: leave one of "
                "them out"
            )
        if rows:
            decided[name] = 0
    if given.get("class_counts") is None and images.has_unlabeled:
        decided["class_counts"] = LabeledFraction(1.0)
    return decided
