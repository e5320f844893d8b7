"""Read `metrics.csv` of a run, without Lightning."""

import csv
import re
from pathlib import Path

_COUNT = re.compile(r"[0-9]{1,18}")


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """Read `metrics.csv`; empty if there is none, or if it is not as it was written."""
    file = folder / "metrics.csv"
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8", errors="replace") as lines:
        try:
            rows = list(csv.DictReader(lines))
        except csv.Error:  # such as a cell of more than 131,072 characters
            return []
    return [row for row in rows if all(_COUNT.fullmatch(row.get(name) or "") for name in ("step", "epoch"))]


def number(text: str | None) -> float | None:
    """Read a number of a row; None if there is none."""
    try:
        return float(text) if text else None
    except ValueError:
        return None
