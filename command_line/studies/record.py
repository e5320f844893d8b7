"""What is known of a cell: which of its commands are done, or why one failed; `cell.json` in its folder."""

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tailmatch.command_line.studies.cell import Cell
from tailmatch.command_line.studies.values import option_text
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
        digest: The digest of the cell for which the commands were run.
        settings: The settings of the cell by name, as text, to say what has changed.
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
    settings: dict[str, str] = field(default_factory=dict)
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
            return cls(study, dict(cell.levels), cell.seed, cell.shown, cell.digest, flat_settings(cell))
        if found.digest != cell.digest:
            raise SettingsError(
                f"{folder} was run with other settings than the study and the options after it have now for {cell}"
                f"{changes(found.settings, flat_settings(cell))}: choose another --out, or remove that folder to run "
                "it anew"
            )
        if found.done != list(cell.commands[: len(found.done)]):
            raise SettingsError(
                f"{folder} has done {'; '.join(map(str, found.done)):.200}, and the commands of {cell} are now "
                f"{'; '.join(cell.commands)}: only what is not done may change; choose another --out, or remove that "
                "folder to run it anew"
            )
        return replace(
            found,
            study=study,
            levels=dict(cell.levels),
            shown=cell.shown and not found.pruned,
            settings=flat_settings(cell),
        )

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
        kinds = isinstance(found.done, list) and isinstance(found.settings, dict)
        if not kinds or any(type(time) not in (int, float) for time in times):
            raise SettingsError(f"{_damaged(folder)}: done, settings, seconds or failed is of another kind")
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


def flat_settings(cell: Cell) -> dict[str, str]:
    """Give the settings of a cell by name, as text; of several of the same name, the last one, which counts."""
    found = dict[str, str]()
    for part in cell.parts:
        for content in (*part.contents, part.settings):
            found |= _leaves("", content)
    for part in cell.parts:
        found |= {name: option_text(value) for name, value in part.options.items()}
    return found | {"commands": "; ".join(cell.commands), "options": shlex.join(cell.extra)}


def _leaves(prefix: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: json.dumps(value, default=str) if isinstance(value, list) else option_text(value)}
    found = dict[str, str]()
    for name, inner in value.items():
        found |= _leaves(f"{prefix}.{name}" if prefix else str(name), inner)
    return found


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Name up to three settings that differ, with both values, as an end of a sentence; empty if none is known to."""
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name, "") != now.get(name, "")]
    if not before or not names:
        return ""
    said = [f"{name} was {before.get(name) or 'not set':.60} and is {now.get(name) or 'not set':.60}" for name in names]
    return f" ({'; '.join(said[:3])}{'; ...' if len(said) > 3 else ''})"


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
