"""Let one process alone write a file or a folder, with a lock that ends with the process."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import stale_partials

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class InUseError(SettingsError):
    """Another process writes the file or folder."""


_HELD: dict[str, object] = {}
"""Lock files that this process holds. It must not open one again: closing it would end the lock."""

_TAKEN = {errno.EAGAIN, errno.EACCES}
_ATTEMPTS = 100
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def sole_writer(lock: Path, what: str, advice: str) -> Iterator[None]:
    """Hold a lock, or refuse at once if another process holds it.

    This is a record lock of POSIX. The system ends it with the process, also after SIGKILL; processes that this one
    starts, such as workers of a data loader, do not inherit it; and it works between the machines of an NFS. The text
    in the file is for messages alone. On a file system without locks there is a warning. (Windows has no record locks;
    there it is the lock of the package filelock.)

    The file, and folders that were made for it, are removed at the end if nothing else is in them.

    Args:
        lock: Path of the lock's file.
        what: What is written, for the message.
        advice: What the user can do if another process writes it, for the message.

    Raises:
        InUseError: Another process, or another thread of this one, holds the lock.
    """
    lock, own = Path(os.path.realpath(lock.parent), lock.name), object()
    if _HELD.setdefault(str(lock), own) is not own:
        raise InUseError(f"{what} is being written by another command of this process: {advice}")
    made = [folder for folder in lock.parents if not folder.exists()]
    try:
        with _record_lock(lock, what, advice) if fcntl is not None else _other_lock(lock, what, advice):
            yield
    finally:
        del _HELD[str(lock)]
        with suppress(OSError):  # it is not empty
            for folder in made:
                folder.rmdir()


@contextmanager
def sole_output(path: Path) -> Iterator[None]:
    """Hold a file that a command writes, for as long as it runs, and remove what killed ones have left of it.

    Raises:
        InUseError: Another process writes the file.
    """
    advice = "wait until it ends, or name another output"
    with sole_writer(path.with_name(f"{path.name}.lock"), str(path), advice):
        for partial, target in stale_partials(path.parent):
            if target.name == path.name or target.name.startswith(f"{path.name}."):  # such as a shard of a prediction
                partial.unlink(missing_ok=True)
        yield


@contextmanager
def _record_lock(lock: Path, what: str, advice: str) -> Iterator[None]:
    descriptor = _open_and_lock(lock)
    if descriptor is None:
        raise InUseError(f"{what} is being written by {_holder(lock)}: {advice}")
    try:
        with suppress(OSError):  # a full disk is for the run to tell
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _myself().encode())
        yield
    finally:
        lock.unlink(missing_ok=True)  # while it is locked: see `_is_in_place`
        os.close(descriptor)


def _open_and_lock(lock: Path) -> int | None:
    """Open the file and lock it; return its descriptor, or None if another process has the lock."""
    attempts = 0
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process has just removed a folder that it had made
            attempts += 1
            if attempts == _ATTEMPTS:  # or it is a place where none can be made, such as /proc
                raise
            continue
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                rank_zero_warn(f"{lock.parent} is on a file system without locks: start nothing else that writes there")
                return descriptor
            os.close(descriptor)
            if error.errno in _TAKEN:
                return None
            raise
        if _is_in_place(lock, descriptor):
            return descriptor
        os.close(descriptor)


def _is_in_place(lock: Path, descriptor: int) -> bool:
    """Tell whether an open file is still the one of that name: the process that had the lock may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:  # what NFS says of a file that was removed
            return False
        raise


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _holder(lock: Path) -> str:
    """Read who holds a lock; it is written just after the lock is taken."""
    for _ in range(20):
        with suppress(OSError):  # it has just ended
            text = lock.read_text(errors="replace").strip()
            if text:
                return text
        time.sleep(0.05)
    return "another process"


@contextmanager
def _other_lock(lock: Path, what: str, advice: str) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise InUseError(f"{what} is being written by another process: {advice}") from error
    with suppress(OSError):  # it is open elsewhere
        lock.unlink()
