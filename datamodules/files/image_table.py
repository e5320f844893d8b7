"""Images listed in a table, one row an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.datamodules.files.image_files import FileList, ImageFiles
from tailmatch.datamodules.files.table import TableFormat
from tailmatch.datamodules.files.table_images import ColumnNames, TableImages, group_rare_classes, read_images
from tailmatch.datamodules.splitting.long_tail import ClassCounts, LabeledFraction


class ImageTable(ImageFiles):
    """Images listed in a CSV, TSV or Parquet file, one row an image.

    The classes are the values of the target column: sorted as numbers if all are numbers, else as text. Values that
    differ only in spaces, in how accents are encoded or in leading zeros are one class. An image whose target is empty
    or -1, or whose split is `unlabeled`, joins the unlabeled set. A row without a split is `train`.

    Args:
        table: The path of the table: `.csv`, `.tsv`, `.txt` (cells separated by spaces) or `.parquet`.
        root: The folder that the paths in the table are relative to. None: the folder of the table.
        image_column: The name of the column with the path of each image.
        target_column: The name of the column with the class of each image, as text or as a number.
        split_column: The name of the column with the split of each image: `train`, `val`, `test` or `unlabeled`. None:
            `split`, if the table has such a column.
        min_class_count: The number of images that a class needs in the whole table. Smaller classes are put together
            into one class, `rare_class`, the last one. If that is too small as well, its images become unlabeled, and
            those of the splits `val` and `test` are left out.
        rare_class: The name of the class that small classes are put into.
        category_columns: The names of columns with further facts about each image, such as a color or a season. Batches
            carry them as `categories`, and a `CategoryNetwork` learns from them.
        columns: The names of the columns, for a text file without a header. None: the first row holds the names.
        delimiter: The character between cells. None: a comma in `.csv`, a tab in `.tsv`, a space in `.txt`.
        encoding: The encoding of a text file. The default reads UTF-8 with or without a byte order mark.
        image_suffix: A suffix to append to each path, such as `.jpg`.
        unlabeled_table: The path of a second table of the same format, which lists further unlabeled images. Only its
            image column is read.
        unlabeled_root: The folder of the second table's images. Without a second table: a folder whose images are all
            unlabeled, except those that the table lists.
        class_counts: How many images of each class become labeled and unlabeled. None: if some images have no class,
            all images with a class are labeled; else `LabeledFraction` with a tenth.
        val_holdout: How many images to hold out for validation: a number for each class (int) or a share of each class
            (float below 1). None: 0.1, or 0 if the table has the split `val` or `validate_on_test` is true.
        test_holdout: How many images to hold out for the test, like `val_holdout`. None: 0.2, or 0 if the table has the
            split `test`.
        **kwargs: The other arguments of `ImageFiles`.

    Raises:
        MissingFileError: A table or a folder is missing.
        SettingsError: The table cannot be read, or a cell is wrong; the message names its row and column.
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
        class_counts: ClassCounts | None = None,
        val_holdout: int | float | None = None,
        test_holdout: int | float | None = None,
        **kwargs: Any,
    ) -> None:
        check_count("min_class_count", min_class_count, 0)
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
        if class_counts is None and images.has_unlabeled:
            class_counts = LabeledFraction(1.0)
        val_holdout = _holdout(images, "val", val_holdout)
        test_holdout = _holdout(images, "test", test_holdout)
        self.images = group_rare_classes(images, min_class_count, rare_class) if min_class_count > 1 else images
        self.class_names = self.images.class_names
        self.category_values = self.images.category_values
        super().__init__(
            str(folder), class_counts=class_counts, val_holdout=val_holdout, test_holdout=test_holdout, **kwargs
        )

    def warnings(self) -> list[str]:
        """See `LabeledUnlabeledDataModule.warnings`; also says which classes were put together."""
        return [*self.images.notes, *super().warnings()]

    def take_class_names(self, names: Sequence[str]) -> None:
        """See `ImageFiles.take_class_names`; also takes the spelling, such as `7` for `007`."""
        self.images = self.images.with_names(names)
        self.class_names = self.images.class_names

    def describe(self, key: str) -> str:
        """See `ImageFiles.describe`: the row that lists the file."""
        return self.images.describe(key) or super().describe(key)

    def list_files(self) -> dict[str, FileList]:
        """See `ImageFiles.list_files`."""
        return self.images.file_lists()


def _holdout(images: TableImages, split: str, holdout: int | float | None) -> int | float | None:
    """Give the holdout of a split: 0 if the table has this split.

    Raises:
        SettingsError: The table has the split, and a holdout is given too.
    """
    rows = len(images.rows(split))
    if rows and holdout:
        raise SettingsError(
            f"{split}_holdout is {holdout}, and {images.table.path} has {rows} rows of split {split!r}: leave one of "
            "them out"
        )
    return 0 if rows else holdout
