"""Turn errors into what the command line prints: a message if the user can mend it, otherwise a traceback."""

import errno
import os
import sys
import traceback
from importlib.metadata import metadata
from typing import NoReturn

from tailmatch.datamodules.arguments import SettingsError

_ONLY_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors that reading does not raise: the disk or the quota is full, the file too large, the disk read-only."""

_WITHOUT_A_FILE = {*_ONLY_WRITING, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EPIPE}
"""Errors of the machine that say enough without the name of a file."""

_IN_WORDS = {
    errno.EEXIST: "a file or a broken link of that name exists",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "it is a folder, and must be a file",
    errno.EMFILE: "too many open files; raise the limit, as in `ulimit -n 4096`",
}
"""Where the words of the system do not say what is wrong with the path."""


def end_with(error: Exception) -> NoReturn:
    """Print an error and end the program with exit code 1. Call it while the error is being handled."""
    message = message_for_user(error)
    if message is None:
        traceback.print_exc()
        message = f"unexpected {type(error).__name__}. Unless it comes from your own classes, {request_for_report()}"
    sys.exit(f"tailmatch: error: {message}")


def message_for_user(error: BaseException) -> str | None:
    """Find the message of an error that the user can mend; None for any other error.

    The user can mend a `SettingsError`, a file that the system refuses to read or write, and a setting that the Trainer
    refuses. jsonargparse and Lightning wrap such errors in their own, so that the whole chain of causes is searched.
    A file is any that the system names: a fault of ours shows there too, as a file that is not where it was written.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SettingsError):
            return str(cause)
        refusal = _refusal_of_the_system(cause)
        if refusal is not None:
            return refusal
        wrapped = type(cause).__module__.split(".")[0] in ("jsonargparse", "argparse", "pytorch_lightning")
        cause = cause.__cause__ or (cause.__context__ if wrapped else None)
    return str(error) if _is_of_the_trainer(error) else None


def _is_of_the_trainer(error: BaseException) -> bool:
    """Tell whether Lightning refuses a setting; where it is not imported, it raised nothing."""
    lightning = sys.modules.get("lightning_fabric.utilities.exceptions")
    if lightning is None:
        return False
    asks = str(error).startswith(_ASKS) or isinstance(error, ModuleNotFoundError)
    return isinstance(error, lightning.MisconfigurationException) or (asks and _is_raised_by_lightning(error))


_ASKS = ("Early stopping conditioned on metric",)
"""How errors of Lightning begin that a user can mend, and that are of no class of their own."""


def _is_raised_by_lightning(error: BaseException) -> bool:
    """Tell whether the line that raised an error is Lightning's, such as one that asks for a package."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith("pytorch_lightning.")


def _refusal_of_the_system(error: BaseException) -> str | None:
    """Say which file the system refuses to read or write, and why; None for any other error."""
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a path has a null character in it, which no file name can have"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    doing = "write" if error.errno in _ONLY_WRITING else "read or write"
    reason = _IN_WORDS.get(error.errno, error.strerror or os.strerror(error.errno))
    if isinstance(error.filename, str | bytes | os.PathLike):
        return f"cannot {doing} {os.fsdecode(error.filename)}: {reason}"
    return f"cannot {doing}: {reason}" if error.errno in _WITHOUT_A_FILE else None


def request_for_report() -> str:
    """Ask for a report of a fault, and name the project's issue tracker if the installed package has one."""
    urls = [entry.split(", ", 1) for entry in metadata("tailmatch").get_all("Project-URL") or []]
    trackers = [url for label, url in urls if label.lower() in ("issues", "bug tracker", "tracker")]
    return f"please report it with the text above{': ' + trackers[0] if trackers else ''}"
