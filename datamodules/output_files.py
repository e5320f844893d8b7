"""Write files completely or not at all, and never over another file by accident; import pyarrow for Parquet files."""

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

from tailmatch.datamodules.arguments import SettingsError

OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What goes wrong in the middle of a file that was opened: the disk or the quota is full, the file is too large for the
file system or the limit of the process, the disk fails. Such an error does not name the file."""


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse, before any work, an output that could not be written at the end; nothing is left on the disk.

    Raises:
        SettingsError: The file exists and `overwrite` is false.
        OSError: The system would refuse to write the file.
    """
    if path.exists() and not overwrite:
        raise SettingsError(
            f"{path} exists: remove it, name another output, or set overwrite to true (--overwrite true; "
            "for init and predict, --output FILE names another output)"
        )
    check_writable(path)


def check_apart(name: str, folder: str | Path, what: str, read: str | Path) -> None:
    """Refuse a folder to write that is one to read, or inside of it, whose files would be read, too.

    Args:
        name: The name of the setting.
        folder: The folder to write.
        what: What is read, for the message.
        read: The folder that is read; of URLs, none is refused.

    Raises:
        SettingsError: The folder to write is the other one, or inside of it.
    """
    inner, outer = Path(folder).resolve(), Path(read).resolve()
    if "://" not in f"{folder}{read}" and (inner == outer or outer in inner.parents):
        raise SettingsError(f"{name} is {folder}, in the folder of {what}, {read}; name one outside of it")


@rank_zero_only
def check_writable(path: Path) -> None:
    """Make sure that a file can be written at a path, by writing an empty one beside it, on process 0.

    Raises:
        OSError: The system refuses to.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    made = [folder for folder in path.parents if not folder.exists()]
    probe = path.with_name(f"{path.name}.confidence.0.{os.getpid()}.partial")  # no temporary name is longer
    try:
        with naming(path, probe):
            path.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()


@contextmanager
def naming(path: str | Path, partial: Path | None = None) -> Iterator[None]:
    """Let errors of the disk name the file that is written, since they do not name one themselves.

    Args:
        path: The file or the folder to name.
        partial: The temporary file, in place of which `path` is named too.

    Raises:
        OSError: An error of the disk, also where torch hides it behind one of its own.
    """
    try:
        yield
    except OSError as error:
        if error.filename == str(partial) or (error.filename is None and error.errno in OF_A_DISK):
            error.filename = str(path)
        raise
    except RuntimeError as error:  # torch.save, which then finds its file at an unexpected position
        cause = error.__context__
        if isinstance(cause, OSError) and cause.errno in OF_A_DISK:
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


@contextmanager
def whole_file(path: Path, hidden: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; its file is renamed to `path` at the end, or removed after an error.

    The file is on the disk before it is renamed, and the folder after that: a kill or a power failure at any moment
    leaves the former file or the new one. A kill also leaves the temporary file (see `stale_partials`).

    Args:
        path: The file.
        hidden: Whether the temporary name begins with `_`, which programs ignore that read all files of a folder.

    Raises:
        OSError: The file cannot be written; the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{'_' * hidden}{path.name}.{os.getpid()}.partial")
    try:
        with naming(path, partial):
            yield partial
            _sync(partial)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync(path.parent)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, completely or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(json_bytes(content) + b"\n")


def json_bytes(content: object) -> bytes:
    """Return readable JSON in UTF-8; what UTF-8 cannot hold, of file names in other encodings, becomes an escape."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")


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
            raise  # such as a disk that is full, which NFS only says now
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
