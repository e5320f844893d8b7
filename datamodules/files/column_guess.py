"""Find the columns of images and classes in a table whose columns nobody named."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.class_names import printable
from tailmatch.datamodules.files.listing import is_image
from tailmatch.datamodules.files.table import TableFormat, first_rows

IMAGE_NAMES = ("image", "image_path", "path", "file", "filename", "file_name", "filepath", "img", "id", "image_id")
TARGET_NAMES = ("target", "label", "class", "category", "class_name", "label_name")
"""Names that such a column has in the tables of others, in lower case; the first that a table has is taken."""

SHOWN = 12


@dataclass(frozen=True)
class Columns:
    """The columns of a table of images.

    Attributes:
        image: The name of the column of paths.
        target: The name of the column of classes.
    """

    image: str
    target: str


def guess_columns(path: Path, image: str | None = None, target: str | None = None) -> Columns:
    """Find the columns of images and classes, as far as they are not given.

    The column of images is the first whose cells are all names of image files, or else one of `IMAGE_NAMES`; that of
    the classes is one of `TARGET_NAMES`. Only the first rows are looked at.

    Args:
        path: The table.
        image: The name of the column of images. None: it is looked for.
        target: The name of the column of classes. None: it is looked for.

    Raises:
        MissingFileError: The file is missing.
        SettingsError: The file cannot be read, or a column is not found: the message says which there are.
    """
    columns = first_rows(path, TableFormat())
    if image is None:
        found = [name for name, cells in columns.items() if all(map(is_image, cells))] or _named(columns, IMAGE_NAMES)
        if not found:
            raise SettingsError(
                f"{path}: no column has names of image files; its columns are {_some(list(columns))}: say which has "
                "them with --image_column"
            )
        image = found[0]
    if target is None:
        found = _named([name for name in columns if name != image], TARGET_NAMES)
        if not found:
            raise SettingsError(
                f"{path}: say which column has the classes, with --target_column; the columns of the first rows are "
                + _some([_described(name, cells) for name, cells in columns.items() if name != image])
            )
        target = found[0]
    return Columns(image, target)


def _named(columns: Sequence[str] | dict[str, Sequence[str]], names: Sequence[str]) -> list[str]:
    lower = {name.lower(): name for name in columns}
    return [lower[name] for name in names if name in lower]


def _described(name: str, cells: Sequence[str]) -> str:
    values = len(set(cells))
    return f"{name} ({values:,} {'value' if values == 1 else 'values'})"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(map(printable, names[:SHOWN])) or 'none'}{more}"
