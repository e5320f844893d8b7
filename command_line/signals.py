"""End a command when it is asked to stop: by a scheduler (SIGTERM), by Ctrl-C (SIGINT), or by SLURM (SIGUSR1).

A signal ends the command at once, except within a fit: from its first step on, a fit saves its state first
(`StopAtStepEnd`). This module does not import torch, so that it is active during the other imports, which take seconds.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from tailmatch.command_line.processes import is_first_process, is_launched

SAME_REQUEST = 1.0
"""Seconds in which further signals repeat the first request: `srun`, `torchrun` and terminals may deliver it twice."""

AGAIN = 0.05
"""Seconds after which a signal is sent again that arrived where Python ignores exceptions."""

AT_ONCE = 2.0
"""Seconds after which a signal ends a process that is busy outside of Python, such as waiting for other processes."""


class Stop(SystemExit):
    """The end of a command that a signal asked for; the exit code is 128 plus its number, as in a shell."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.hint = ""

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}{self.hint}"


class StopSignals:
    """What this process was asked, and whether it may stop at once.

    Attributes:
        received: The first signal; None as long as there was none.
        deferred: Whether a signal is only noted, for code that looks at `received`.
        importing: Whether modules are imported, where an exception may get lost; then a signal ends the process.
        pass_on: Function that sends a signal to the processes that this one launched.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferred = False
        self.importing = False
        self.pass_on: Callable[[int], None] = lambda signum: None
        self._since = 0.0

    @contextmanager
    def while_importing(self) -> Iterator[None]:
        """Let a signal end the process at once within a `with` block that imports modules."""
        self.importing = True
        try:
            yield
        finally:
            self.importing = False

    def handle(self, signum: int, frame: FrameType | None = None) -> None:
        """Note a signal, and stop unless that is deferred. A second signal ends the process where it stands.

        Raises:
            Stop: The signal is the first one, and stopping is not deferred.
        """
        if self.received is None:
            self.received, self._since = signum, time.monotonic()
            if self.importing:
                self._end_here(signum)
            if not self.deferred:
                if is_launched():
                    os.kill(os.getppid(), signum)
                raise Stop(signum)
        elif time.monotonic() - self._since >= SAME_REQUEST:
            if is_launched():  # often the first process, which ends those that it launched and waits for them
                os._exit(exit_code(signum))
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def _end_here(self, signum: int) -> None:
        """End the process where it stands, with those that it launched and the one that launched it."""
        if is_launched():
            os.kill(os.getppid(), signum)
        self.pass_on(signum)
        if is_first_process():
            print(Stop(signum), file=sys.stderr, flush=True)
        os._exit(exit_code(signum))

    def _watch(self, arrivals: int, over: threading.Event, asks: Sequence[int]) -> None:
        """Read the signals that arrive, and end the process if its main thread does not come to handle one that asks.

        Python writes every signal with a handler of its own to the pipe, such as SIGCHLD where a library handles it.
        """
        while arrived := os.read(arrivals, 1):
            if arrived[0] not in asks:
                continue
            if over.wait(AT_ONCE):
                break
            if self.received is None and not self.deferred:
                self._end_here(arrived[0])
        os.close(arrivals)

    def _send_again(
        self, lost: "sys.UnraisableHookArgs", otherwise: Callable[["sys.UnraisableHookArgs"], object]
    ) -> None:
        """Send a signal once more whose `Stop` was raised where Python ignores exceptions, as in a destructor."""
        if not isinstance(lost.exc_value, Stop):
            otherwise(lost)
            return
        self.received = None
        threading.Timer(AGAIN, os.kill, [os.getpid(), lost.exc_value.signum]).start()

    def behind(self, error: BaseException) -> Stop | None:
        """Return the stop that ends the command, or that an error follows from; None for an error of another cause."""
        if isinstance(error, Stop):
            return error
        return None if self.received is None or self.deferred else Stop(self.received)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals within a `with` block. In another thread than the main one, nothing is handled."""
        self.__init__()  # type: ignore[misc]  # another command in the same process begins anew
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if slurm_job() else [])]
        before = {signum: signal.signal(signum, self.handle) for signum in signals}
        arrivals, written = os.pipe()
        os.set_blocking(written, False)
        wakeup = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        over, ignored = threading.Event(), sys.unraisablehook
        sys.unraisablehook = lambda lost: self._send_again(lost, ignored)
        watcher = threading.Thread(target=self._watch, args=[arrivals, over, signals], daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            sys.unraisablehook = ignored
            signal.set_wakeup_fd(wakeup)
            os.close(written)
            watcher.join(AT_ONCE)  # what comes next may count threads, or fork
            ends = self.received is not None and is_launched()  # the signal may be passed on to it once more
            for signum, handler in before.items():
                signal.signal(signum, signal.SIG_IGN if ends else handler)


SIGNALS = StopSignals()
"""The signals of this process."""


def end_stopped(stop: Stop) -> None:
    """Say why the command ends, have SLURM run the job again if it sent SIGUSR1, and exit with the signal's code."""
    if is_first_process():
        print(stop, file=sys.stderr, flush=True)
        job = slurm_job()
        if stop.signum == signal.SIGUSR1 and job is not None:
            requeue(job)
    sys.exit(exit_code(stop.signum))


def exit_code(signum: int) -> int:
    """Return 128 plus the signal's number, as in a shell.

    A process that Lightning launched ends with 0, since Lightning kills the first one, whose code counts, at any other.
    """
    return 0 if is_launched() else 128 + signum


def slurm_job() -> str | None:
    """Return the number of the SLURM job that this process belongs to, with that of an array's task; None if none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def requeue(job: str) -> None:
    """Have SLURM run a job again, with `scontrol requeue`; a failure is printed."""
    try:
        result = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        failure = result.stderr.strip() or f"exit code {result.returncode}" if result.returncode else ""
    except OSError as error:
        failure = str(error)
    print(f"SLURM job {job} {f'is not requeued: {failure}' if failure else 'is requeued'}", file=sys.stderr, flush=True)
