"""A cell that this process runs: the process of its present command, and where that writes."""

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tailmatch.command_line.studies.cell import Cell
from tailmatch.command_line.studies.record import LOG, Record

PROGRAM = (sys.executable, "-m", "tailmatch.cli")
"""The words that start `tailmatch`."""


@dataclass
class Running:
    """A cell that this process runs.

    Attributes:
        cell: The cell.
        record: What is known of it.
        held: Holds its lock.
        place: The number of the place that it has.
        process: The process of its present command.
        log: Where the process writes.
        began: When the present command began, in seconds of `time.monotonic`.
        hopeless: Whether it was told to end.
    """

    cell: Cell
    record: Record
    held: ExitStack
    place: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    began: float
    hopeless: bool = False

    @property
    def command(self) -> str:
        """The command that runs."""
        return self.cell.commands[len(self.record.done)]


def begin(
    cell: Cell,
    record: Record,
    held: ExitStack,
    place: int,
    out: Path,
    program: Sequence[str],
    environment: Mapping[str, str],
) -> Running:
    """Start the next command of a cell.

    Args:
        cell: The cell.
        record: What is known of it.
        held: Holds its lock.
        place: The number of the place that it has.
        out: The folder of the study.
        program: The words that start `tailmatch`.
        environment: The environment variables of the command.
    """
    words = cell.words(cell.commands[len(record.done)], out)
    log = (out / cell.name / LOG).open("ab")
    log.write(f"$ tailmatch {shlex.join(words)}\n".encode())
    log.flush()
    process = subprocess.Popen(
        [*program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(environment)
    )
    return Running(cell, record, held, place, process, log, time.monotonic())
