"""How a sweep went: what is done, what has failed, and how long it took."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tailmatch.command_line.studies.cell import Cell


@dataclass
class Outcome:
    """How a sweep went: the cells that are done, and the message of each that is not."""

    done: list[Cell] = field(default_factory=list)
    failed: dict[str, tuple[Cell, str]] = field(default_factory=dict)

    def failures(self) -> list[str]:
        """Name the cells that failed, those with the same message together."""
        same = dict[str, list[Cell]]()
        for cell, message in self.failed.values():
            same.setdefault(message, []).append(cell)
        return [f"failed: {'; '.join(map(str, found))}: {message}" for message, found in same.items()]


def result_of(folder: Path) -> str:
    """Give the balanced accuracy of the test of a run; empty if there was none."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        metrics = json.loads((folder / "test_metrics.json").read_text(encoding="utf-8"))["metrics"]
        return f": balanced accuracy {100 * metrics['balanced_accuracy']:.1f} %"
    return ""
