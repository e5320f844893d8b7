"""Write files completely or not at all, and never over another file by accident; import pyarrow for Parquet files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tailmatch.datamodules.arguments import SettingsError


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to write over an existing file.

    Raises:
        SettingsError: The file exists and `overwrite` is false.
    """
    if path.exists() and not overwrite:
        raise SettingsError(
            f"{path} exists: remove it, name another output, or set overwrite to true (for tailmatch predict: "
            "--output FILE, --overwrite true)"
        )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; its file is renamed to `path` at the end, or removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def pyarrow_for(path: Path) -> tuple[Any, Any]:
    """Import `pyarrow` and `pyarrow.parquet`, to read or write `path`.

    Raises:
        SettingsError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{path} needs pyarrow: pip install 'tailmatch[parquet]', or name a file of another format"
        ) from error
    return pyarrow, parquet
