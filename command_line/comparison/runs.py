"""Find the folders of runs, and read what a comparison needs of them; what is damaged is named."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from tailmatch.callbacks.reports.metrics_rows import read_metrics
from tailmatch.command_line.comparison.settings import flat_settings
from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.class_names import printable
from tailmatch.lightning_modules.checkpoints.configuration import MOST_VALUES, count_values

PARTS = ("config.yaml", "run.json", "metrics.csv", "test_metrics.json", "last_evaluations.json", "cell.json")
"""Files by which a folder is known as that of a run."""

DEEPEST = 100
"""How often the values of a configuration may be nested."""

LARGEST = 1e150
"""Numbers of this size and more count as infinite, so that sums and squares of the others are none."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DamagedError(Exception):
    """A file of a run is not as it was written. The message names it and says why."""


@dataclass
class Run:
    """What is read of a run.

    Attributes:
        folder: The folder of the run, as it was named.
        config: The configuration of the run; empty if there is none, as of a trainer in Python.
        facts: `run.json`; empty if there is none.
        test: `test_metrics.json`; None if there is none.
        last: `last_evaluations.json`; None if there is none.
        cell: `cell.json` of a sweep; None if there is none.
        settings: The configuration as flat text.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    cell: dict[str, Any] | None = None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder as text for a message."""
        return printable(str(self.folder))

    @property
    def data(self) -> dict[str, Any]:
        """The arguments of its data; empty if they are not known."""
        data = self.config.get("data")
        arguments = data.get("init_args") if isinstance(data, dict) else None
        return arguments if isinstance(arguments, dict) else {}

    @property
    def seed(self) -> str:
        """The seeds that the run was made with, as text: that of the training, and that of the split if it is set."""
        seed = (self.cell or {}).get("seed", self.config.get("seed_everything"))
        split = self.data.get("seed")
        return str(seed) if split is None or split == seed else f"{seed}/{split}"

    @property
    def split_seed(self) -> str:
        """The seed of the split."""
        split = self.data.get("seed")
        return str(self.config.get("seed_everything") if split is None else split)

    @cached_property
    def curve(self) -> list[dict[str, str]]:
        """The rows of `metrics.csv`; empty if there is none."""
        return read_metrics(self.folder)

    @property
    def levels(self) -> dict[str, str] | None:
        """The levels of a cell by axis; None for a run that is no cell."""
        return None if self.cell is None else {str(axis): str(level) for axis, level in self.cell["levels"].items()}


def find_runs(places: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Find the folders of runs: those named, and those in folders named; each once.

    Returns:
        The folders, and a line about each place that has no run.

    Raises:
        MissingFileError: There is no such folder.
    """
    found: dict[str, Path] = {}
    lines = []
    for place in places:
        if not place.exists():
            raise MissingFileError(f"no run {place}: there is no such folder")
        if not place.is_dir():
            continue  # such as the study.yaml of a sweep, which `runs/study/*` names
        inside = [place] if holds_results(place) else sorted(filter(holds_results, place.iterdir()), key=natural)
        if not inside:
            lines.append(f"{printable(str(place))} has no run in it: there is no {' or '.join(PARTS)}")
        for folder in inside:
            found.setdefault(str(folder.resolve()), folder)
    return list(found.values()), lines


def holds_results(folder: Path) -> bool:
    """Tell whether a folder is that of a run, or may not be looked into."""
    try:
        return folder.is_dir() and any((folder / name).is_file() for name in PARTS)
    except PermissionError:
        return True


def natural(path: Path) -> list[tuple[int, str]]:
    """Give the key that sorts `run-2` before `run-10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", path.name)]


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Read runs, and give a line about each that is left out: it is damaged, it failed, or it is not to be shown."""
    runs, lines = [], []
    for folder in folders:
        try:
            run = read_run(folder)
        except DamagedError as error:
            lines.append(f"left out: {error}")
            continue
        cell = run.cell or {}
        if cell.get("shown") is False:
            continue  # it exists for other cells
        if cell.get("failed"):
            message = cell["failed"].get("message") if isinstance(cell["failed"], dict) else None
            why = f": {printable(str(message))}" if message else f"; see {printable(str(folder / 'cell.log'))}"
            lines.append(f"left out: {run.name} has failed{why}")
            continue
        runs.append(run)
    return runs, lines


def read_run(folder: Path) -> Run:
    """Read the files of a run.

    Raises:
        DamagedError: One of them is not as it was written.
    """
    run = Run(folder)
    config = _yaml(folder / "config.yaml")
    if config is not None:
        run.config, run.settings = config, flat_settings(config)
    else:
        run.settings = {"model": folder.resolve().name}
    run.facts = _json(folder / "run.json") or {}
    run.test = _checked_test(folder / "test_metrics.json")
    last = folder / "last_evaluations.json"
    run.last = _checked_last(last, _json(last) or (run.test or {}).get("last_evaluations"))
    run.cell = _json(folder / "cell.json")
    if run.cell is not None and not isinstance(run.cell.get("levels"), dict):
        raise DamagedError(f"{folder / 'cell.json'} has no levels")
    return run


def study_of(runs: Sequence[Run]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the file and the content of each study that cells belong to.

    Raises:
        SettingsError: A study file is not as it was written.
    """
    folders = {run.folder.resolve().parent for run in runs if run.cell is not None}
    for folder in sorted(folders):
        file = folder / "study.yaml"
        try:
            content = _yaml(file)
        except DamagedError as error:
            raise SettingsError(str(error)) from error
        if content is not None:
            yield file, content


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value of a file is a number, NaN included."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_float(value: float) -> float:
    """Convert a number of a file, which may be of any size; those that no metric has become infinite."""
    return float(value) if not abs(value) >= LARGEST else math.inf if value > 0 else -math.inf


def _checked_test(file: Path) -> dict[str, Any] | None:
    content = _json(file)
    if content is None:
        return None
    metrics, recall = content.get("metrics"), content.get("recall", {})
    if not isinstance(metrics, dict) or not all(map(is_number, metrics.values())):
        raise DamagedError(f"{file} has no metrics that are numbers by name")
    if not isinstance(recall, dict) or not all(value is None or is_number(value) for value in recall.values()):
        raise DamagedError(f"{file} has no recall that is a number for each class")
    return content


def _checked_last(file: Path, content: Any) -> dict[str, Any] | None:
    if content is None:
        return None
    metrics = content.get("metrics") if isinstance(content, dict) else None
    whole = isinstance(metrics, dict) and all(
        isinstance(kinds, dict) and is_number(kinds.get("mean")) for kinds in metrics.values()
    )
    if not whole or not is_number(content.get("evaluations")):
        raise DamagedError(f"{file} is not as it was written")
    return dict(content)


def _json(file: Path) -> dict[str, Any] | None:
    return _mapping(file, json.loads)


def _yaml(file: Path) -> dict[str, Any] | None:
    return _mapping(file, _read_yaml)


def _read_yaml(text: str) -> Any:
    """Read YAML by the loader in C, which would crash where it is nested too deeply.

    Raises:
        ValueError: It is nested too deeply, or has too many values with its aliases written out.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} times")
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    if count_values(node) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values with aliases written out")
    return loader.construct_document(node)


def _mapping(file: Path, read: Any) -> dict[str, Any] | None:
    """Read a mapping from a file; None if there is no such file.

    Raises:
        DamagedError: The file cannot be read, or holds something else.
    """
    try:
        content = read(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedError(f"{printable(str(file))} cannot be read: {reason}") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{printable(str(file))} is not as it was written: it has no names and values")
    return content
