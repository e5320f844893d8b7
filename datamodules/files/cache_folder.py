"""The folder of image caches: who writes to it, and whether there is room."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import stale_partials

PATIENCE = 5.0
"""For how many seconds a process waits for another one that builds the cache, before it says so."""

ADVICE = "make room, name another cache_dir, or give a smaller image_size or cache_budget_gb (0: no cache)"


def default_cache_dir() -> Path:
    """Give the folder `$XDG_CACHE_HOME/tailmatch`, usually `~/.cache/tailmatch`."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tailmatch"


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make a folder, and refuse one that cannot be written to by a message that says what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_remains(folder)
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "is full while the cache is written" if full else f"cannot hold the cache ({error.strerror or error})"
        raise SettingsError(f"{folder.resolve()} {reason}: {ADVICE}") from error


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock, and say so where another process has it. The system frees the lock of a process that dies."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        rank_zero_warn(f"waiting for another process that builds the image cache in {path.parent}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_remains(folder: Path) -> None:
    """Remove what builds that were killed have left, of all caches in the folder."""
    for partial, target in stale_partials(folder):
        with suppress(Timeout), FileLock(target.with_suffix(".lock"), timeout=0):
            partial.unlink(missing_ok=True)


def room_for(path: Path, needed: int) -> Any:
    """Open a file to write `needed` bytes to.

    Raises:
        SettingsError: They do not fit on the disk.
    """
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise SettingsError(
            f"the cache needs {needed / 1e9:.2f} GB and {path.parent.resolve()} has {free / 1e9:.2f} GB left: {ADVICE}"
        )
    return path.open("wb")
