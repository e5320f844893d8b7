"""Write files completely or not at all, and never over another file by accident; import pyarrow for Parquet files."""

import errno
import os
import re
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
    """Yield a temporary path beside `path`; its file is renamed to `path` at the end, or removed after an error.

    The file is on the disk before it is renamed, and the folder after that: a kill or a power failure at any moment
    leaves the former file or the new one. A kill also leaves the temporary file (see `stale_partials`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def stale_partials(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each temporary file of `whole_file` in a folder, and the path of the file that it was to become.

    They are left by processes that were killed, or belong to processes that write: only remove those of files that
    nobody else can be writing.
    """
    for file in sorted(folder.glob("*.partial")):
        match = _PARTIAL.fullmatch(file.name)
        if match and file.is_file():
            yield file, folder / match["name"]


_PARTIAL = re.compile(r"(?P<name>.+)\.\d+\.partial")

_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
"""What file systems say that cannot sync a folder."""


def _sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk; Windows and some file systems cannot say so of a folder."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (folder and error.errno in _NO_SYNC):
            error.filename = str(path)  # such as a disk that is full, which NFS only says now
            raise
    finally:
        os.close(descriptor)


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
