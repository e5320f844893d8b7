"""One row for each setting: mean and standard deviation over its seeds, beside published numbers."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tailmatch.command_line.comparison.checks import Difference
from tailmatch.command_line.comparison.results import Result, described, facts_value, some_of
from tailmatch.command_line.comparison.settings import NONE, Columns, columns_of
from tailmatch.datamodules.class_names import printable

SHARES = {
    "top1", "top5", "balanced_accuracy", "gm_recall", "macro_f1", "gm_f1", "many", "medium", "few", "many_shot",
    "medium_shot", "few_shot",
}  # fmt: skip
"""Metrics that are shown in percent."""

FROM = "from"
"""The head of the column that tells published rows."""


@dataclass(frozen=True)
class Cell:
    """A number of a row: the mean over `n` seeds, and the sample standard deviation; None for one seed."""

    mean: float
    std: float | None
    n: int


@dataclass
class Row:
    """A row of a table: one setting, with the numbers of all its runs.

    Attributes:
        values: The values of the setting in the columns.
        cells: The numbers by metric.
        results: The runs of the setting; empty for published numbers.
        recall: The recall of each class by name.
        published: The number of its source, from 1; None if it was measured.
        counted: The numbers of seeds of its cells, if these are of several settings; empty for the number of runs.
    """

    values: tuple[str, ...]
    cells: dict[str, Cell] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    recall: dict[str, Cell] = field(default_factory=dict)
    published: int | None = None
    counted: str = ""

    @property
    def label(self) -> str:
        """What the row is called in a chart."""
        return ", ".join(value for value in self.values if value != NONE) or NONE

    @property
    def seeds(self) -> str:
        """The number of seeds as text; empty for published numbers."""
        return self.counted or (str(len(self.results)) if self.results else "")

    def by_seed(self, metric: str) -> dict[str, float]:
        """Give a metric of each seed that has it."""
        return {each.run.seed: each.metrics[metric] for each in self.results if metric in each.metrics}


@dataclass
class Table:
    """A comparison.

    Attributes:
        titles: The heads of the columns with settings.
        metrics: The metrics.
        rows: The rows.
        caption: Sentences that say what the numbers are.
        forced: What makes the rows not comparable, which were compared all the same.
        notes: Sentences about single numbers.
        sources: The sources of published numbers.
        title: The title of the study; empty if the runs are of none or of several.
        class_names: The classes whose recall is shown, the one with the most labels first; empty if it is not.
        metric_of: The metric that a column of numbers has, where the name of the column is another.
    """

    titles: list[str]
    metrics: list[str]
    rows: list[Row]
    caption: list[str] = field(default_factory=list)
    forced: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    title: str = ""
    class_names: list[str] = field(default_factory=list)
    metric_of: dict[str, str] = field(default_factory=dict)

    def metric_heads(self) -> list[str]:
        """Give the heads of the columns of numbers: metrics in words, and levels as they are."""
        return [name if name in self.metric_of else name.replace("_", " ") for name in self.metrics]

    def number(self, row: Row, name: str) -> str:
        """Write the number of a row in a column."""
        return shown_number(row.cells.get(name), self.metric_of.get(name, name))

    @property
    def heads(self) -> list[str]:
        """The heads of the columns before the metrics."""
        return [*self.titles, "seeds", *([FROM] if self.sources else [])]

    def head_cells(self, row: Row) -> list[str]:
        """Give the values of a row in those columns."""
        origin = "measured" if row.published is None else f"published [{row.published}]"
        return [*row.values, row.seeds, *([origin] if self.sources else [])]

    def legend(self) -> list[str]:
        """All sentences below or above the table."""
        force = []
        if self.forced:
            force = [f"Compared by --force, although the runs differ: {'; '.join(map(str, self.forced))}."]
        published = [
            f"[{number}] Published, not measured here: {source}." for number, source in enumerate(self.sources, 1)
        ]
        return [*force, *self.caption, *published, *self.notes]


def columns(results: Sequence[Result], axes: Mapping[str, Sequence[str]], kept: str | None = None) -> Columns:
    """Find the columns: the axes of a sweep if all runs are cells of one, else the settings that differ.

    Args:
        results: The runs.
        axes: The axes of the study with their levels in order, as far as they are known.
        kept: An axis that is a column even if all runs have one level of it, beside another column.
    """
    levels = [result.run.levels for result in results]
    names = list(dict.fromkeys(axis for each in levels for axis in each or ()))
    if not names or any(each is None or set(each) != set(names) for each in levels):
        seeds = [result.run.seed.partition("/")[0] for result in results]
        return columns_of([result.run.settings for result in results], seeds)
    names.sort(key=lambda name: list(axes).index(name) if name in axes else len(axes))
    differing = [name for name in names if name == kept or len({(each or {})[name] for each in levels}) > 1]
    if set(differing) <= {kept}:
        differing = [name for name in names if name != kept][:1] + differing
    same = [(name, [str((levels[0] or {})[name])]) for name in names if name not in differing]
    return Columns(differing, [tuple((each or {})[name] for name in differing) for each in levels], same)


def rows_of(
    results: Sequence[Result], found: Columns, metrics: Sequence[str], axes: Mapping[str, Sequence[str]]
) -> list[Row]:
    """Gather the runs of each setting; rows of a study come in the order of its levels, others in that of the runs."""
    rows: dict[tuple[str, ...], Row] = {}
    for result, values in zip(results, found.values, strict=True):
        rows.setdefault(values, Row(values)).results.append(result)
    listed = zip(found.titles, zip(*rows, strict=True), strict=True)
    orders = [list(dict.fromkeys([*axes[title], *column])) if title in axes else [] for title, column in listed]
    for row in rows.values():
        row.cells = {name: cell for name in metrics if (cell := cell_of(_of_runs(row, name))) is not None}
        names = dict.fromkeys(name for each in row.results for name in each.recall)
        recalls = {name: [each.recall.get(name) for each in row.results] for name in names}
        row.recall = {
            name: cell
            for name, values in recalls.items()
            if (cell := cell_of([value for value in values if value is not None])) is not None
        }

    def place(row: Row) -> tuple[int, ...]:
        return tuple(
            order.index(value) if value in order else len(order)
            for order, value in zip(orders, row.values, strict=True)
        )

    return sorted(rows.values(), key=place)


def _of_runs(row: Row, metric: str) -> list[float]:
    return [each.metrics[metric] for each in row.results if metric in each.metrics]


def cell_of(values: Sequence[float]) -> Cell | None:
    """Compute mean and sample standard deviation of what is a number; None if nothing is."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    return Cell(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def lacking_notes(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """Name unfinished runs, and numbers of runs that are in no mean: they are missing, or are no finite number."""
    unfinished = [each.run.name for row in rows for each in row.results if each.run.facts.get("finished") is False]
    notes = [f"Not trained to the end: {some_of(unfinished, 5)}."] if unfinished else []
    for name in metrics:
        runs = [
            f"{each.run.name} ({each.metrics.get(name, 'missing')})"
            for row in rows
            for each in row.results
            if not math.isfinite(each.metrics.get(name, math.nan))
        ]
        if runs:
            notes.append(f"{name} is left out of the mean where it is no number: {some_of(runs, 5)}.")
    return notes


def caption_of(results: Sequence[Result], metrics: Sequence[str], beside: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Say what the numbers are: over what, in which unit, of which images, and by which evaluation."""
    shares = any(is_share(name) for name in metrics)
    units = ["in percent"] * shares + ["loss in nats"] * ("loss" in metrics)
    sentences = [", ".join(["Mean ± sample standard deviation over the seeds", *units]) + "."]
    images = {result.protocol.get("evaluated images") or "unknown images" for result in results}
    evaluations = list(dict.fromkeys(described(result.protocol) for result in results))
    numbers = {facts_value(result.run, "images", "test") for result in results} - {None}
    data = list(dict.fromkeys(result.run.settings.get("data", "") for result in results))
    number = numbers.pop() if len(numbers) == 1 else None
    of = f"{number:,} " if images == {"test images"} and isinstance(number, int) else ""
    where = f" of {' and '.join(filter(None, data))}" if any(data) else ""
    how = " or ".join(evaluations)
    sentences.append(f"{how[0].upper()}{how[1:]}, on {of}{' or '.join(sorted(images))}{where}.")
    same = [f"{name} {values[0]}" for name, values in beside if len(values) == 1]
    if same:
        sentences.append(f"All rows: {', '.join(same)}.")
    listed = [f"{name} ({some_of(values, 4)})" for name, values in beside if len(values) > 1]
    if listed:
        sentences.append(f"With these columns, other settings differ, too: {some_of(listed, 12)}.")
    return [printable(sentence) for sentence in sentences]


def is_share(metric: str) -> bool:
    """Tell whether a metric is shown in percent."""
    return metric in SHARES


def shown_number(cell: Cell | None, metric: str, plus_minus: str = " ± ") -> str:
    """Write a number: shares in percent with two digits, others with four significant ones."""
    if cell is None:
        return NONE
    return shown_pair(cell.mean, cell.std, is_share(metric), plus_minus)


def shown_pair(mean: float, std: float | None, share: bool, plus_minus: str = " ± ") -> str:
    """Write a mean and, if there is one, its standard deviation."""
    numbers = [value for value in (mean, std) if value is not None]
    return plus_minus.join(f"{100 * value:.2f}" if share else f"{value:.4g}" for value in numbers)


def classes_by_labels(results: Sequence[Result]) -> list[str]:
    """Order the classes by their labeled images, the most first, as the first run with both counts them."""
    with_recall = [result for result in results if result.recall]
    for result in with_recall:
        order = order_of(result)
        if order is not None:
            return order
    return list(with_recall[0].recall) if with_recall else []


def order_of(result: Result) -> list[str] | None:
    """Order the classes of a run by their labeled images, the most first; None if these are not known."""
    counts: Any = result.run.facts.get("class_counts")
    names = list(result.recall)
    if not isinstance(counts, list) or len(counts) != len(names) or not all(isinstance(n, int) for n in counts):
        return None
    return [names[k] for k in sorted(range(len(names)), key=lambda k: -counts[k])]
