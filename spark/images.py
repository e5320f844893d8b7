"""Images to label, as a DataFrame: those of a folder or a table, by their paths, or packed in Parquet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files.table import TableFormat, read_table
from tailmatch.spark.labels import one_message
from tailmatch.spark.parts import literal
from tailmatch.spark.session import slots

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TASKS_A_SLOT = 4
"""Tasks of a small pool, so that a slow one does not keep the others waiting."""

MOST_IMAGES = 32_768
"""The largest number of images in a task: what is lost where a machine fails. Their rows are 4 MB of Parquet."""

TABLES = (".csv", ".tsv", ".txt", ".parquet")


@dataclass(frozen=True)
class ImageSource:
    """Where images are.

    Attributes:
        images: A folder of image files; a table with their paths; or a Parquet file or a folder of Parquet files with
            the columns `key` (or `path`) and `content`.
        image_column: The column of a table with the path of each image.
        root: The folder that these paths are relative to. None: that of the table.
        image_suffix: A suffix to append to each path.
    """

    images: str
    image_column: str = "image"
    root: str | None = None
    image_suffix: str = ""


@dataclass(frozen=True)
class Listed:
    """N image files, in their order.

    Attributes:
        root: The folder that the keys are relative to.
        keys: The path of each below it.
        levels: The values of each category level that the table has, by its name.
    """

    root: Path
    keys: Sequence[str]
    levels: dict[str, list[str]]


def listed(source: ImageSource, levels: Sequence[str]) -> Listed | None:
    """List image files; None if the images are packed in Parquet.

    Args:
        source: Where the images are.
        levels: The names of the network's category levels.

    Raises:
        MissingFileError: There is no such file or folder.
        SettingsError: There are no images, the table has no such column or wrong cells, or a name is not UTF-8.
    """
    from tailmatch.datamodules.files.listing import image_files  # which imports torch
    from tailmatch.datamodules.files.table_columns import relative_paths

    path = Path(source.images)
    if "://" in source.images:
        return None
    if path.is_dir():
        _only_for_tables(source)
        found = Listed(path, image_files(path, ""), {})
        if not found.keys:
            if any(file.name[0] not in "._" for file in path.rglob("*.parquet")):
                return None
            raise SettingsError(f"the folder {path.resolve()} has no images in it, and no Parquet files with images")
    elif path.is_file() and path.suffix.lower() in TABLES:
        if path.suffix.lower() == ".parquet" and _is_packed(path):
            return None
        table = read_table(path, TableFormat(), source.image_column, optional=levels)
        root = path.parent if source.root is None else Path(source.root)
        keys = relative_paths(table, source.image_column, root, root, source.image_suffix)
        values = {name: [coded.values[code] for code in coded.codes] for name, coded in table.coded.items()}
        found = Listed(root, keys, values)
    elif path.exists():
        raise SettingsError(f"images is {path}; it must be a folder or a table ({', '.join(TABLES)})")
    else:
        raise MissingFileError(f"there is no folder, table or Parquet file {path.resolve()}")
    for key in found.keys:
        if not key.isascii():
            _check_utf8(key)
    return found


def listed_frame(session: "SparkSession", found: Listed, batch_size: int) -> "DataFrame":
    """Make a DataFrame of listed files: `key`, `path` and the levels, whole blocks of `batch_size` rows in a task.

    So each image shares its batch with the same ones as in `tailmatch predict`, on any number of tasks.
    """
    from pyspark.sql.functions import col

    total = len(found.keys)
    blocks = -(-total // batch_size)
    tasks = min(blocks, max(TASKS_A_SLOT * slots(session), -(-total // MOST_IMAGES)))
    root, places = str(found.root.resolve()), np.arange(total)
    rows = pa.table(
        {
            "key": pa.array(found.keys, pa.string()),
            "path": pa.array([f"{root}/{key}" for key in found.keys], pa.string()),
            **{name: pa.array(values, pa.string()) for name, values in found.levels.items()},
            "_place": pa.array(places),
            "_task": pa.array((places // batch_size * tasks // blocks).astype(np.int32)),
        }
    )
    frame = session.createDataFrame(rows)
    return frame.repartitionById(tasks, col("_task")).sortWithinPartitions("_place").drop("_place", "_task")


def packed_frame(session: "SparkSession", source: ImageSource, levels: Sequence[str]) -> "DataFrame":
    """Read images that are packed in Parquet: `key`, `content` and the levels.

    Raises:
        SettingsError: The file cannot be read, or has no such columns.
    """
    from pyspark.sql.functions import col

    _only_for_tables(source)
    place = source.images if "://" in source.images else literal(source.images)  # a URL may be a pattern
    with one_message(f"read {source.images} as Parquet"):
        frame = session.read.option("recursiveFileLookup", "true").parquet(place)
    types = dict(frame.dtypes)
    key = "key" if "key" in types else "path"
    if types.get(key) != "string" or types.get("content") != "binary":
        raise SettingsError(
            f"{source.images} has the columns {dict(list(types.items())[:20])}; images in Parquet need a column key or "
            "path of strings, and a column content of bytes"
        )
    present = [col(name).cast("string").alias(name) for name in levels if name in types]
    return frame.select(col(key).alias("key"), "content", *present)


def _is_packed(path: Path) -> bool:
    """Tell whether a Parquet file has a column `content`."""
    from pyarrow import parquet

    try:
        return "content" in parquet.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise SettingsError(f"{path} is no Parquet file: {error}") from error


def _only_for_tables(source: ImageSource) -> None:
    for name, default in (("image_column", "image"), ("root", None), ("image_suffix", "")):
        if getattr(source, name) != default:
            raise SettingsError(f"{name} is {getattr(source, name)!r}, and {source.images} is no table of paths")


def _check_utf8(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(
            f"the name of the image {key!r} is not UTF-8, and Parquet has no other: rename it"
        ) from error
