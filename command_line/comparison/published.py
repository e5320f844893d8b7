"""Published numbers of a study file, beside those that were measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailmatch.command_line.comparison.results import ALIASES
from tailmatch.command_line.comparison.runs import Run, as_float, is_number
from tailmatch.command_line.comparison.settings import NONE
from tailmatch.command_line.comparison.table import Cell, Row, Table
from tailmatch.command_line.studies.values import option_text
from tailmatch.datamodules.arguments import SettingsError

SCALES = {"percent": 0.01, "share": 1.0}
"""The units of published numbers, and the factor that makes them shares."""


@dataclass(frozen=True)
class Published:
    """A published number: where it is from, which metric it is, and the levels that it is of."""

    source: str
    metric: str
    levels: dict[str, str]
    cell: Cell


def axes_of(study: Mapping[str, Any]) -> dict[str, list[str]]:
    """Read the axes of a study and the names of their levels, in order; what is written otherwise is left out."""
    axes = study.get("axes")
    found = {}
    for axis, levels in axes.items() if isinstance(axes, dict) else ():
        if isinstance(levels, dict) and isinstance(levels.get("values"), list):
            levels = levels["values"]
        if isinstance(levels, dict | list):
            found[option_text(axis)] = [option_text(level) for level in levels]
    return found


def add_published(table: Table, file: Path, study: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """Put the published numbers of a study below the measured ones of the same setting, and name their source.

    Numbers that are not shown become a note: those of a metric that is no column, and of levels that were not run.

    Args:
        table: The table.
        file: The study file.
        study: The content of the study file.
        runs: The runs of the table.

    Raises:
        SettingsError: The study file has published numbers in another form.
    """
    axes = {axis for run in runs for axis in run.levels or ()}
    levels = {axis: {(run.levels or {}).get(axis) for run in runs} for axis in axes if axis not in table.titles}
    for number in published_numbers(file, study):
        elsewhere = [axis for axis, level in number.levels.items() if axis in levels and levels[axis] != {level}]
        unknown = [axis for axis in number.levels if axis not in axes]
        if number.metric not in table.metrics:
            note = f"{number.source} has published {number.metric}, too: --metrics {number.metric} shows it."
        elif unknown or elsewhere or not axes & set(table.titles):
            text = ", ".join(f"{axis} {level}" for axis, level in number.levels.items())
            note = f"{number.source} has a published number of {text}, which no run here is beside."
        else:
            _insert(table, number)
            continue
        if note not in table.notes:
            table.notes.append(note)


def _insert(table: Table, number: Published) -> None:
    """Put a number into the row of its source and setting, which is below the measured one, or at the end."""
    if number.source not in table.sources:
        table.sources.append(number.source)
    source = table.sources.index(number.source) + 1
    values = tuple(number.levels.get(title, NONE) for title in table.titles)
    same = [place for place, row in enumerate(table.rows) if row.values == values]
    for place in same:
        if table.rows[place].published == source:
            table.rows[place].cells.setdefault(number.metric, number.cell)
            return
    row = Row(values, {number.metric: number.cell}, published=source)
    table.rows.insert(same[-1] + 1 if same else len(table.rows), row)


def published_numbers(file: Path, study: Mapping[str, Any]) -> Iterator[Published]:
    """Read the published numbers of a study.

    Raises:
        SettingsError: They have another form.
    """
    tables = study.get("published") or []
    if not isinstance(tables, list):
        raise SettingsError(f"published in {file} must be a list of tables with source, metric, unit and rows")
    for each in tables:
        if not isinstance(each, dict) or not isinstance(each.get("source"), str) or not each.get("metric"):
            raise SettingsError(f"published in {file} must name source and metric of each table, and has {each!r:.100}")
        _check_keys(each, ("source", "metric", "unit", "rows"), f"published of {each['source']} in {file}")
        unit = each.get("unit", "percent")
        if not isinstance(unit, str) or unit not in SCALES:
            raise SettingsError(f"unit is {unit} of {each['source']} in {file}; it must be {' or '.join(SCALES)}")
        metric, rows = str(each["metric"]), each.get("rows") or []
        if not isinstance(rows, list):
            raise SettingsError(f"rows is {rows!r:.100} of {each['source']} in {file}; it must be a list of rows")
        for row in rows:
            levels, cell = _row(file, each["source"], row, SCALES[unit])
            yield Published(each["source"], ALIASES.get(metric, metric), levels, cell)


def _row(file: Path, source: str, row: Any, scale: float) -> tuple[dict[str, str], Cell]:
    where, mean, std = [row.get(name) if isinstance(row, dict) else None for name in ("where", "mean", "std")]
    if not isinstance(where, dict) or not is_number(mean) or not (std is None or is_number(std)):
        raise SettingsError(f"a published row of {source} in {file} needs where, mean and std or none: {row!r:.100}")
    _check_keys(row, ("where", "mean", "std"), f"a published row of {source} in {file}")
    levels = {option_text(axis): option_text(level) for axis, level in where.items()}
    return levels, Cell(as_float(mean) * scale, None if std is None else as_float(std) * scale, 0)


def _check_keys(content: Mapping[Any, Any], known: Sequence[str], name: str) -> None:
    unknown = [key for key in content if key not in known]
    if unknown:
        raise SettingsError(f"{name} has {unknown[0]}; it may have {', '.join(known)}")
