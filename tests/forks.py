"""Run functions in forks of a test's process, which may be killed. They must not compute with torch's threads."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def fork(function: Callable[..., Any], *args: Any) -> int:
    """Call a function in a fork, which exits with code 0, or 1 after an error; return its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def exit_code(child: int) -> int:
    """Wait for the end of a fork; a negative code is that of a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*args: Any) -> None:
    """Kill this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def meanwhile(function: Callable[..., Any], *args: Any, until: Path) -> Iterator[int]:
    """Call a function in a fork that is killed at the end; wait at first for a file that it makes."""
    child = fork(function, *args)
    try:
        while not until.exists():
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended"
            time.sleep(0.005)
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        exit_code(child)
