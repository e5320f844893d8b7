"""Run the cells of a study: some at a time, each in processes of its own, together with other machines."""

import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from tailmatch.callbacks.reports.durations import duration
from tailmatch.command_line.signals import SIGNALS, Stop
from tailmatch.command_line.studies import running_cell
from tailmatch.command_line.studies.cell import Cell
from tailmatch.command_line.studies.outcomes import Outcome, result_of
from tailmatch.command_line.studies.places import environment_at
from tailmatch.command_line.studies.record import LOG, Record
from tailmatch.command_line.studies.running_cell import Running, begin
from tailmatch.datamodules.locks import InUseError, sole_writer

POLL = 0.1
"""Seconds between two looks at the processes that run."""

BUSY = 2.0
"""Seconds until a cell that another process holds is tried again."""

KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
"""Exit codes of a process that was killed, such as one for which the memory was too small."""

LOCK = "cell.lock"


class Source(Protocol):
    """Where cells come from that are not known beforehand, such as a search."""

    def coming(self) -> int:
        """Count the cells that are still to be given."""
        ...

    def more(self, free: int) -> list[Cell]:
        """Give cells for some free places; fewer, or none, if there are no more."""

    def is_hopeless(self, cell: Cell) -> bool:
        """Look at a cell that runs, and tell whether it is to be ended."""

    def ended(self, cell: Cell, failed: bool, pruned: bool) -> None:
        """Take note that a cell has ended."""


class Runner:
    """Runs cells until each is done or has failed; several of these may share the folder of a study.

    A cell belongs to the process that holds its lock, which ends with the process. What another one runs is waited for,
    since it may be killed: then this one goes on with it. A command that is killed is continued once. Cells that need a
    failed one are not run.

    Args:
        title: The title of the study.
        cells: The cells, each after those that it needs.
        out: The folder of the study.
        places: The environment variables of each place; so many cells run at a time.
        program: The words that start `tailmatch`, before those of a command; None for `PROGRAM`.
        source: Gives further cells as places become free.
    """

    def __init__(
        self,
        title: str,
        cells: Sequence[Cell],
        out: Path,
        places: Sequence[Mapping[str, str]],
        program: Sequence[str] | None = None,
        source: Source | None = None,
    ) -> None:
        self.source = source
        self.title = title
        self.program = running_cell.PROGRAM if program is None else program
        self.out = out
        self.places = places
        self.outcome = Outcome()
        self._waiting = {cell.name: cell for cell in cells}
        self._total = len(cells)
        self._running: list[Running] = []
        self._busy_until = dict[str, float]()
        self._began = time.time()
        self._seconds = dict[tuple[str, ...], list[float]]()
        self._killed = set[str]()

    def run(self) -> Outcome:
        """Run the cells.

        Raises:
            Stop: A signal asked to stop. The trainings that ran have saved their state.
        """
        SIGNALS.deferred = True  # so that none comes between a process and the note of it
        try:
            while True:
                if SIGNALS.received is not None:
                    raise Stop(SIGNALS.received)
                self._look_after()
                self._ask_for_more()
                if not (self._waiting or self._running):
                    break
                self._fill()
                time.sleep(POLL)
        except BaseException as error:
            self._stop_all()
            if isinstance(error, Stop):
                error.hint = ": the same command continues"
            raise
        finally:
            SIGNALS.deferred = False
        return self.outcome

    # Cells to run

    def _ask_for_more(self) -> None:
        """Take further cells for the places that nothing waits for."""
        now = time.monotonic()
        ready = sum(self._busy_until.get(name, 0) < now for name in self._waiting)
        free = len(self.places) - len(self._running) - ready
        if self.source is not None and free > 0:
            more = {cell.name: cell for cell in self.source.more(free)}
            self._total += len(more)
            self._waiting |= more

    def _fill(self) -> None:
        """Begin as many cells as there are free places."""
        for cell in list(self._waiting.values()):
            if len(self._running) == len(self.places):
                return
            missing = next(
                (self.outcome.failed[name] for name in cell.needs.values() if name in self.outcome.failed), None
            )
            if missing is not None:
                self._end(cell, f"needs {missing[0]}, which has failed")
            elif any(name in self._waiting or self._runs(name) for name in cell.needs.values()):
                continue
            elif self._busy_until.get(cell.name, 0) < time.monotonic():
                self._try(cell)

    def _runs(self, name: str) -> bool:
        return any(running.cell.name == name for running in self._running)

    def _try(self, cell: Cell) -> None:
        """Begin a cell, unless another process has it, or has ended it."""
        with ExitStack() as held:
            try:
                held.enter_context(sole_writer(self.out / cell.name / LOCK, str(cell), "wait until it ends"))
                self._check_commands(cell)
            except InUseError as error:
                self._wait_for(cell, error)
                return
            record = Record.of(cell, self.title, self.out)
            if record.is_done(cell):
                if record != Record.read(self.out / cell.name):  # such as another title of the study
                    record.write(self.out / cell.name)
                self._end(cell, pruned=record.pruned)
                self._seconds.setdefault(tuple(cell.levels.values()), []).append(record.seconds)
            elif record.failed is not None and record.failed.get("time", 0) > self._began:
                self._end(cell, str(record.failed.get("message")))
            elif (changed := cell.changed_config()) is not None:
                self._end(cell, f"{changed} has changed since this sweep began: run it again")
            else:
                record.failed = None
                record.write(self.out / cell.name)
                cell.write_settings(self.out)
                del self._waiting[cell.name]
                self._say(f"{'continues' if record.done or record.seconds else 'begins'}: {cell}")
                self._begin(cell, record, held.pop_all(), self._free_place())

    def _check_commands(self, cell: Cell) -> None:
        """Look for a command that has outlived its sweep.

        Raises:
            InUseError: There is one.
        """
        for lock in (self.out / cell.name).rglob("*.lock"):
            if lock.name != LOCK:
                with sole_writer(lock, str(cell), "wait until it ends"):
                    pass

    def _wait_for(self, cell: Cell, error: InUseError) -> None:
        if cell.name not in self._busy_until:
            self._say(f"waiting: {error}".removesuffix(": wait until it ends"))
        self._busy_until[cell.name] = time.monotonic() + BUSY

    def _free_place(self) -> int:
        taken = {running.place for running in self._running}
        return next(place for place in range(len(self.places)) if place not in taken)

    def _begin(self, cell: Cell, record: Record, held: ExitStack, place: int) -> None:
        """Start the next command of a cell."""
        environment = environment_at(self.places[place])
        self._running.append(begin(cell, record, held, place, self.out, self.program, environment))

    # Cells that run

    def _look_after(self) -> None:
        """Note what has ended, and start what follows."""
        for running in list(self._running):
            code = running.process.poll()
            if code is not None:
                self._running.remove(running)
                running.log.close()
                self._after(running, code)
            elif self.source is not None and not running.hopeless and self.source.is_hopeless(running.cell):
                running.hopeless = True
                running.process.terminate()

    def _after(self, running: Running, code: int) -> None:
        cell, record, folder = running.cell, running.record, self.out / running.cell.name
        record.seconds += time.monotonic() - running.began
        if code:
            try:
                self._check_commands(cell)
            except InUseError as error:  # a command that had just begun when its sweep was killed
                record.write(folder)
                running.held.close()
                self._waiting[cell.name] = cell
                self._wait_for(cell, error)
                return
        again = code in KILLED and cell.name not in self._killed and not running.hopeless
        if running.hopeless and code in KILLED:
            record.prune(cell)
            code = 0
        elif again:
            self._killed.add(cell.name)
            self._say(f"killed: {cell}; it is continued, once")
        elif code:
            record.fail(running.command, code, folder / LOG)
        else:
            record.done.append(running.command)
        record.write(folder)
        if again or not (code or record.is_done(cell)):
            self._begin(cell, record, running.held, running.place)
            return
        running.held.close()
        if code:
            assert record.failed is not None
            self._end(cell, str(record.failed["message"]), f" ({running.command.split()[0]}; see {folder / LOG})")
        else:
            self._seconds.setdefault(tuple(cell.levels.values()), []).append(record.seconds)
            self._end(cell, pruned=record.pruned)
            how = "ended early" if record.pruned else "done"
            self._say(f"{how}: {cell}{result_of(folder)}, {duration(record.seconds)}{self._left()}")

    def _end(self, cell: Cell, message: str | None = None, where: str = "", pruned: bool = False) -> None:
        self._waiting.pop(cell.name, None)
        if self.source is not None:
            self.source.ended(cell, message is not None, pruned)
        if message is None:
            self.outcome.done.append(cell)
        else:
            self.outcome.failed[cell.name] = (cell, message)
            self._say(f"failed: {cell}: {message}{where}")

    def _left(self) -> str:
        """Estimate how long the rest takes, from cells of the same levels, or from all that are known."""
        known = [seconds for each in self._seconds.values() for seconds in each]
        rest = [*self._waiting.values(), *(running.cell for running in self._running)]
        if not known or not (rest or self._coming()):
            return ""
        middle, coming = statistics.median(known), self._coming()
        seconds = sum(statistics.mean(self._seconds.get(tuple(cell.levels.values()), [middle])) for cell in rest)
        seconds += middle * coming
        return f"; about {duration(seconds / min(len(self.places), len(rest) + coming))} left"

    def _coming(self) -> int:
        """Count the cells that the source has not given yet."""
        return 0 if self.source is None else self.source.coming()

    def _stop_all(self) -> None:
        """Stop what runs, and wait until it has saved its state."""
        if not self._running:
            return
        one = len(self._running) == 1
        self._say("stopping: the training saves its state" if one else "stopping: the trainings save their states")
        for running in self._running:
            with suppress(OSError):
                running.process.send_signal(signal.SIGTERM)
        for running in self._running:
            running.process.wait()
            running.record.seconds += time.monotonic() - running.began
            with suppress(OSError):  # a full disk may be why all stop; the others are waited for
                running.record.write(self.out / running.cell.name)
            running.held.close()

    def _say(self, text: str) -> None:
        ended = len(self.outcome.done) + len(self.outcome.failed)
        print(f"{time.strftime('%H:%M:%S')} [{ended} of {self._total + self._coming()}] {text}", flush=True)
