"""Limits of the memory that a file takes: a few kilobytes can expand to more than any machine has.

The messages do not name the file; the caller adds its name.
"""

from pathlib import Path
from typing import Any

from tailmatch.datamodules.arguments import SettingsError

MOST_UNPACKED = 1_000_000_000
"""Bytes that any file may become."""

MOST_TIMES = 100
"""How many times its size a file may become beyond that; pseudo-labels and tables of images become 2 to 20 times."""

MOST_COLUMNS = 10_000
"""Columns of a table."""

ROW_BYTES = 64
"""The least that a row of a table takes in memory, with a path as a text of Python."""


def check_unpacked(path: Path, unpacked: int) -> None:
    """Refuse a file that takes far more memory than its size.

    Args:
        path: The file.
        unpacked: The bytes that it becomes in memory.

    Raises:
        SettingsError: These are more than `MOST_UNPACKED`, and more than `MOST_TIMES` the size of the file.
    """
    size = path.stat().st_size
    if unpacked > max(MOST_UNPACKED, MOST_TIMES * size):
        raise SettingsError(
            f"it has {size:,} bytes and would take {unpacked:,} in memory; the limit is {MOST_TIMES} times its size, "
            f"or {MOST_UNPACKED:,} bytes if that is more"
        )


def check_parquet(path: Path, file: Any) -> None:
    """Refuse a `pyarrow.parquet.ParquetFile` that, by its metadata, takes far more memory than its size.

    Raises:
        SettingsError: See `check_unpacked`; or it has more columns than `MOST_COLUMNS`.
    """
    facts = file.metadata
    if facts.num_columns > MOST_COLUMNS:
        raise SettingsError(f"it has {facts.num_columns:,} columns; at most {MOST_COLUMNS:,} are read")
    unpacked = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
    check_unpacked(path, max(unpacked, facts.num_rows * ROW_BYTES))
