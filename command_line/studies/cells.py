"""The trainings of a study: one cell for each combination of levels and each seed."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tailmatch.command_line.studies.cell import Cell, filled_in
from tailmatch.command_line.studies.study import COMMANDS, MOST_CELLS, Part, Study, Where
from tailmatch.command_line.studies.values import option_text
from tailmatch.datamodules.arguments import SettingsError

LONGEST_NAME = 150


def cells_of(study: Study, extra: Sequence[str] = ()) -> list[Cell]:
    """List the cells of a study, in the order in which they are run: the seeds of a combination follow each other.

    Args:
        study: The study.
        extra: Words that are typed after the settings of each cell.

    Raises:
        SettingsError: Nothing is left to run, there are too many cells, two have the same name, or what one needs is
            not a cell.
    """
    combinations = list(_combinations(study))
    if not combinations:
        raise SettingsError(f"{study.common.name}: `exclude` leaves no combination of levels")
    cells = dict[str, Cell]()
    for levels, seed in itertools.product(combinations, study.seeds):
        cell = cell_of(study, levels, seed, tuple(extra))
        same = cells.setdefault(cell.name.casefold(), cell)
        if same is not cell:
            raise SettingsError(
                f"{study.common.name}: {same} and {cell} would have the same folder, {cell.name}: rename a level"
            )
    digested: dict[str, Cell] = {}
    by_name = {cell.name: cell for cell in cells.values()}
    for cell in by_name.values():
        _digest(cell, by_name, digested, ())
    return [digested[name] for name in by_name]


def chosen_cells(cells: Sequence[Cell], where: Where, seeds: Sequence[int] | None) -> list[Cell]:
    """Choose the cells of some levels and seeds."""
    return [cell for cell in cells if _matches(cell.levels, where) and (seeds is None or cell.seed in seeds)]


def with_needed(chosen: Sequence[Cell], cells: Sequence[Cell]) -> list[Cell]:
    """Add to some cells those that they need, and those that these need, each after what it needs."""
    by_name, found = {cell.name: cell for cell in cells}, dict[str, Cell]()

    def add(cell: Cell) -> None:
        if cell.name not in found:
            for name in cell.needs.values():
                add(by_name[name])
            found[cell.name] = cell

    for cell in chosen:
        add(cell)
    return list(found.values())


def _combinations(study: Study) -> Iterator[dict[str, str]]:
    count = len(study.seeds)
    for axis in study.axes.values():
        count *= len(axis)
    if count > MOST_CELLS:
        raise SettingsError(f"{study.common.name}: {count:,} trainings, and a study has at most {MOST_CELLS:,}")
    named: list[list[str]] = [list(levels) for levels in study.axes.values()]
    for chosen in itertools.product(*named):
        levels = dict(zip(study.axes, chosen, strict=True))
        if not any(_matches(levels, where) for where in study.exclude):
            yield levels


def _matches(levels: Mapping[str, str], where: Where) -> bool:
    return all(levels[axis] in wanted for axis, wanted in where.items())


def cell_of(
    study: Study, levels: Mapping[str, str], seed: int, extra: tuple[str, ...], parts: Sequence[Part] = ()
) -> Cell:
    """Make a cell, without its digest.

    Args:
        study: The study.
        levels: The level on each axis.
        seed: The seed.
        extra: Words that are typed after all settings.
        parts: What the cell has besides.

    Raises:
        SettingsError: It needs what is not a cell, or a placeholder stands for nothing.
    """
    parts = [study.common, *(axis[levels[name]] for name, axis in study.axes.items()), *parts]
    parts += [part for where, part in study.combinations if _matches(levels, where)]
    needs, shown = dict[str, str](), True
    commands: tuple[str, ...] = COMMANDS
    for part in parts:
        for need, changed in part.needs.items():
            needs[need] = _needed(study, levels, changed, seed, part.name)
        commands = part.commands or commands
        shown = shown if part.shown is None else part.shown
    cell = Cell(_folder(levels, seed), levels, seed, tuple(parts), needs, commands, shown, extra)
    for command in cell.commands:  # finds placeholders that stand for nothing
        cell.words(command, Path())
    for part in cell.parts:
        known = {name: "" for name in (*needs, "run", "seed")}
        filled_in(dict(part.settings), known, part.name)
    return cell


def _needed(study: Study, levels: Mapping[str, str], changed: Mapping[str, str], seed: int, name: str) -> str:
    for axis, level in changed.items():
        if level not in study.axes.get(axis, {}):
            raise SettingsError(f"{name}: needs has {axis}: {level}, and there is no such level")
    needed = {**levels, **changed}
    if any(_matches(needed, where) for where in study.exclude):
        raise SettingsError(f"{name}: needs {', '.join(needed.values())}, which `exclude` leaves out")
    return _folder(needed, seed)


def _folder(levels: Mapping[str, str], seed: int) -> str:
    """Name the folder of a cell: its levels and its seed, of letters and digits of any script, `.`, `_` and `-`."""
    words = [re.sub(r"[^\w.]+", "_", level).strip("_.") or "_" for level in levels.values()]
    name = "-".join([*words, f"seed{seed}"])
    if len(name.encode()) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(json.dumps(list(levels.values())).encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST_NAME - 30].decode(errors='ignore')}-{mark}-seed{seed}"


def _digest(cell: Cell, cells: Mapping[str, Cell], done: dict[str, Cell], path: tuple[str, ...]) -> str:
    """Hash all that a cell depends on, the cells that it needs included.

    Raises:
        SettingsError: Cells need each other.
    """
    if cell.name in done:
        return done[cell.name].digest
    if cell.name in path:
        raise SettingsError(f"{cell.parts[-1].name}: cells need each other: {' needs '.join([*path, cell.name])}")
    needs = {name: _digest(cells[needed], cells, done, (*path, cell.name)) for name, needed in cell.needs.items()}
    done[cell.name] = replace(cell, digest=digest_of(cell, needs))
    return done[cell.name].digest


def digest_of(cell: Cell, needs: Mapping[str, str]) -> str:
    """Hash the settings of a cell, its seed and trainings, and the digests of what it needs, by their names.

    Commands that come after a training may change as long as they are not done; see `Record.of`.
    """
    parts = [[part.contents, part.settings, part.options] for part in cell.parts]
    trainings = [command for place, command in enumerate(cell.commands) if not place or command.split()[0] == "fit"]
    content = [_with_text_keys(parts), needs, trainings, cell.extra, cell.seed]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_text_keys(value: Any) -> Any:
    """Write the keys of mappings as text, since JSON sorts no others together and has none of some kinds."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else option_text(key): _with_text_keys(each) for key, each in value.items()}
    return [_with_text_keys(each) for each in value] if isinstance(value, list | tuple) else value
