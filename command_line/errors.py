"""Turn errors into what the command line prints: a message if the user can mend it, otherwise a traceback."""

import errno
import sys
import traceback
from importlib.metadata import metadata
from typing import NoReturn

from lightning_fabric.utilities.exceptions import MisconfigurationException

from tailmatch.datamodules.arguments import SettingsError

_OF_THE_MACHINE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
"""Permission denied, read-only, disk full: errors of the system that the user can mend."""


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
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SettingsError):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno in _OF_THE_MACHINE and cause.filename is not None:
            return f"{cause.filename}: {cause.strerror}"
        wrapped = type(cause).__module__.split(".")[0] in ("jsonargparse", "argparse", "pytorch_lightning")
        cause = cause.__cause__ or (cause.__context__ if wrapped else None)
    return str(error) if isinstance(error, MisconfigurationException) else None


def request_for_report() -> str:
    """Ask for a report of a fault, and name the project's issue tracker if the installed package has one."""
    urls = [entry.split(", ", 1) for entry in metadata("tailmatch").get_all("Project-URL") or []]
    trackers = [url for label, url in urls if label.lower() in ("issues", "bug tracker", "tracker")]
    return f"please report it with the text above{': ' + trackers[0] if trackers else ''}"
