"""Run one row of the table: a command with bad input, in a process of its own that starts in milliseconds.

The process is forked from a server that has imported everything and runs no threads (`multiprocessing`'s forkserver).
It has no capabilities, so that the rights of files also count for root.
"""

import ctypes
import functools
import hashlib
import multiprocessing
import os
import re
import resource
import shlex
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[2]
MEMORY = 6 * 2**30
"""Bytes of data that a process may allocate, so that endless input ends as an error."""

Spoil = Callable[[Path], None]
"""A function that spoils the prepared folder."""

Listing = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Row:
    """One kind of bad input.

    Attributes:
        name: What is wrong, in a few words; unique.
        command: Words as typed after `tailmatch`, or, with `python`, the code of a script. The working directory is a
            copy of the prepared folder (`prepared.py`).
        says: Texts that the message must contain: what is wrong and, mostly, what would be right.
        given: Functions that spoil the folder before the command runs (`spoil.py`).
        code: The exit code: 1, or 2 if the command line could not be parsed.
        lines: The most lines of the message. 0: three, or six of the parser, which also says the way to the key.
        creates: Pattern of paths that the command may write, such as `new/*`. Empty: none.
        largest_file: The most bytes that a file may get, as on a full disk. None: no bound.
        seconds: The time after which the command counts as hanging.
        python: Whether `command` is Python.
        fails: Why the row fails today. Empty: it does not.
    """

    name: str
    command: str
    says: tuple[str, ...]
    given: Sequence[Spoil] = ()
    code: int = 1
    lines: int = 0
    creates: str = ""
    largest_file: int | None = None
    seconds: float = 120
    python: bool = False
    fails: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code (None if it hung) and what it printed."""

    code: int | None
    out: str
    err: str


def row(name: str, command: str, *says: str, **options: Any) -> Row:
    """Make a row."""
    return Row(name, command, says, **options)


def call(name: str, python: str, *says: str, **options: Any) -> Row:
    """Make a row of Python code, which must raise an error that a user can mend."""
    return Row(name, python, says, python=True, **options)


@functools.cache
def server() -> Any:
    """Start the server, once; processes of the returned context are forked from it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.bad_inputs.imported"])
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(paths), CUDA_VISIBLE_DEVICES=""):
        forkserver.ensure_running()
    return context


def run(row: Row, folder: Path, beside: Path) -> Outcome:
    """Run the command of a row in `folder`; its output and the user's caches go to `beside`."""
    beside.mkdir()
    process = server().Process(target=child, args=(replace(row, given=()), folder, beside))
    process.start()
    process.join(row.seconds)
    code = process.exitcode
    if code is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    out, err = ((beside / name).read_text(errors="replace") for name in ("out", "err"))
    return Outcome(code, out, err)


def child(row: Row, folder: Path, beside: Path) -> None:
    """Run a row's command in the current process, and end it with the exit code."""
    from tailmatch.cli import main
    from tailmatch.command_line.errors import end_with

    os.setsid()
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(beside / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdin, sys.stdout, sys.stderr = open(os.devnull), open(1, "w", 1), open(2, "w", 1)
    os.environ.update(HOME=str(beside / "home"), XDG_CACHE_HOME=str(beside / "cache"))
    os.chdir(folder)
    restrict(row.largest_file)
    if not row.python:
        main(shlex.split(row.command))
        return
    try:
        exec(compile(row.command, "script", "exec"), {"__name__": "script"})
    except Exception as error:
        end_with(error)  # prints the message of an error that the user can mend, and a traceback of any other


def restrict(largest_file: int | None) -> None:
    """Drop all capabilities, and bound the memory and the size of files."""
    if sys.platform == "linux":
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None, use_errno=True).capset(header, none):
            raise OSError(ctypes.get_errno(), "capset")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))


def listing(folder: Path) -> Listing:
    """Describe all that is in a folder: kind, rights, target of a link; size, time and hash of a file."""
    found: Listing = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        entry: tuple[Any, ...] = (stat.filemode(facts.st_mode),)
        if path.is_symlink():
            entry += (os.readlink(path),)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest() if os.access(path, os.R_OK) else "unreadable"
            entry += (facts.st_size, facts.st_mtime_ns, content)
        found[str(path.relative_to(folder))] = entry
    return found


def copy_of(prepared: Path, place: Path) -> Path:
    """Copy the prepared folder to `place`, and return the copy."""
    return Path(shutil.copytree(prepared, place / "work", symlinks=True))


def check(row: Row, prepared: Path, place: Path) -> None:
    """Run a row on a copy of the prepared folder, and check all that it promises.

    Raises:
        AssertionError: A promise is broken.
    """
    folder = copy_of(prepared, place)
    for spoil in row.given:
        spoil(folder)
    before = listing(folder)
    outcome = run(row, folder, place / "beside")
    after = listing(folder)
    shown = f"\nexit code {outcome.code}\n{outcome.out[-1000:]}\n{outcome.err[-6000:]}"
    assert outcome.code is not None, f"it hung for {row.seconds} seconds{shown}"
    assert "Traceback" not in outcome.err, f"a traceback{shown}"
    assert outcome.code == row.code, f"exit code {outcome.code} instead of {row.code}{shown}"
    start = re.search(r"^tailmatch(?: \w+)*: error: ", outcome.err, re.MULTILINE)
    assert start, f"no message{shown}"
    message = outcome.err[start.end() :]
    missing = [text for text in row.says if text not in message]
    assert not missing, f"the message does not say {missing}{shown}"
    lines = message.strip().count("\n") + 1
    most = row.lines or (3 if row.code == 1 else 6)
    assert lines <= most, f"the message has {lines} lines, more than {most}{shown}"
    changed = sorted(
        path for path in before.keys() & after.keys() if before[path] != after[path] and not fnmatch(path, row.creates)
    )
    gone = sorted(before.keys() - after.keys())
    new = sorted(path for path in after.keys() - before.keys() if not fnmatch(path, row.creates))
    assert not (changed or gone or new), f"on disk: changed {changed}, gone {gone}, new {new}{shown}"
