"""What is known of a cell: which of its commands are done, or why one failed; `cell.json` in its folder."""

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tailmatch.command_line.studies.cell import Cell
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import write_json

FILE = "cell.json"
LOG = "cell.log"


@dataclass
class Record:
    """The content of `cell.json`.

    Attributes:
        study: The title of the study.
        levels: The level of the cell on each axis.
        seed: The seed.
        shown: Whether the results are a row of the table.
        digest: That of the cell for which the commands were run.
        done: The commands that are done.
        seconds: How long the commands took that are done, in all attempts.
        failed: The command that failed last, its exit code, its message and the time; None if none has.
        pruned: Whether a search has ended the training early.
    """

    study: str
    levels: dict[str, str]
    seed: int
    shown: bool
    digest: str
    done: list[str] = field(default_factory=list)
    seconds: float = 0.0
    failed: dict[str, Any] | None = None
    pruned: bool = False

    @classmethod
    def of(cls, cell: Cell, study: str, out: Path) -> "Record":
        """Read the record of a cell, or begin one.

        Raises:
            SettingsError: The folder holds something else, or what was run there was not this cell.
        """
        folder = out / cell.name
        found = cls.read(folder)
        if found is None:
            if (folder / "config.yaml").exists() or (folder / "checkpoints").exists():
                raise SettingsError(
                    f"{folder} holds a run that no sweep has begun: choose another --out, or move it away"
                )
            return cls(study, dict(cell.levels), cell.seed, cell.shown, cell.digest)
        if found.digest != cell.digest:
            raise SettingsError(
                f"{folder} was run with other settings than the study and the options after it have now for {cell}: "
                f"choose another --out, or remove that folder to run it anew"
            )
        if found.done != list(cell.commands[: len(found.done)]):
            raise SettingsError(f"{_damaged(folder)}: done is {found.done!r:.100}")
        return replace(found, study=study, levels=dict(cell.levels), shown=cell.shown and not found.pruned)

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """Read the file; None if there is none.

        Raises:
            SettingsError: It is not as it was written.
        """
        try:
            found = cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError) as error:
            raise SettingsError(f"{_damaged(folder)}: {error}") from error
        failed = {} if found.failed is None else found.failed
        times = [found.seconds, failed.get("time", 0.0) if isinstance(failed, dict) else None]
        if not isinstance(found.done, list) or any(type(time) not in (int, float) for time in times):
            raise SettingsError(f"{_damaged(folder)}: done, seconds or failed is of another kind")
        return found

    def write(self, folder: Path) -> None:
        """Write the file."""
        write_json(folder / FILE, asdict(self))

    def fail(self, command: str, code: int, log: Path) -> None:
        """Note that a command has failed."""
        self.failed = {"command": command, "code": code, "message": last_message(log, code), "time": time.time()}

    def prune(self, cell: Cell) -> None:
        """Note that nothing more is run, and that there is no result to show."""
        self.done, self.pruned, self.shown = list(cell.commands), True, False

    def is_done(self, cell: Cell) -> bool:
        """Tell whether all commands are done."""
        return self.done == list(cell.commands)


def _damaged(folder: Path) -> str:
    return f"{folder / FILE} is not as sweep wrote it (remove its folder to run it anew)"


def last_message(log: Path, code: int) -> str:
    """Find what a command said last: its error, or its last line."""
    try:
        with log.open("rb") as opened:
            opened.seek(max(0, log.stat().st_size - 20_000))
            lines = opened.read().decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    errors = [line for line in lines if line.startswith("tailmatch: error:")]
    said = (errors or [line for line in lines if line.strip()] or [""])[-1].removeprefix("tailmatch: error:").strip()
    return said if code >= 0 else f"killed by signal {-code}"
