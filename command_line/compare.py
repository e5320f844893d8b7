"""`tailmatch compare`: lay out runs as a table, one row for each setting, with mean and deviation over its seeds."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

from tailmatch.command_line.comparison.across import across
from tailmatch.command_line.comparison.checks import differences, refusal
from tailmatch.command_line.comparison.published import add_published, axes_of
from tailmatch.command_line.comparison.results import Source, choose_metrics, choose_source, results_of
from tailmatch.command_line.comparison.runs import PARTS, find_runs, holds_results, read_runs, study_of
from tailmatch.command_line.comparison.table import (
    Table,
    caption_of,
    classes_by_labels,
    columns,
    lacking_notes,
    rows_of,
)
from tailmatch.command_line.comparison.text import print_table
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.locks import sole_output
from tailmatch.datamodules.output_files import check_free, whole_file

EPILOG = """\
examples:
  tailmatch compare runs/*
  tailmatch compare runs/study --output table.tex page.html     a table for a paper, and a page with plots
  tailmatch compare runs/study --across unlabeled               its levels as columns of the first metric
  tailmatch compare runs/study --metrics gm_recall top1 few --per_class
  tailmatch compare runs/* --metrics val/balanced_accuracy      runs without a test
"""

ENDINGS = (".md", ".csv", ".tex", ".html")
"""The endings of the files that can be written."""


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="tailmatch compare",
        description="Compare runs: one row for each setting, with mean and standard deviation over its seeds. What "
        "differs between the runs becomes the columns. Runs that cannot be compared are refused, with what differs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="Folder of a run, or a folder with folders of runs."
    )
    made.add_argument(
        "--metrics",
        nargs="+",
        action="extend",
        default=[],
        metavar="METRIC",
        help="Metrics of test_metrics.json; head and tail are many and few. With val/ in front, they are those of the "
        "last validation (default: balanced_accuracy, top1, macro_f1, many, medium, few).",
    )
    made.add_argument(
        "--by",
        choices=get_args(Source),
        help="What of the runs is compared: their test, the mean of their last evaluations, or the best or the last "
        "validation of the fit (default: the first of these that any run has).",
    )
    made.add_argument(
        "--output",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="FILE",
        help=f"Files to write, beside the table in the terminal: {', '.join(ENDINGS)}.",
    )
    made.add_argument(
        "--across",
        metavar="COLUMN",
        help="Lay out the first metric with the values of this column across the page, as papers do; files of numbers "
        "(.csv) and pages (.html) stay as they are.",
    )
    made.add_argument("--per_class", action="store_true", help="Show the recall of each class, too.")
    made.add_argument(
        "--force", action="store_true", help="Compare runs that cannot be compared; the caption says what differs."
    )
    made.add_argument(
        "--overwrite", choices=("true", "false"), default="false", help="Replace existing files (default: false)."
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run `tailmatch compare`."""
    asked = parser().parse_args(args)
    for file in asked.output:
        if file.suffix.lower() not in ENDINGS:
            raise SettingsError(f"--output is {file}; its name must end with {', '.join(ENDINGS)}")
        if file.name in PARTS and holds_results(file.parent):
            raise SettingsError(f"--output is {file}, which is a file of a run; name another one")
        check_free(file, asked.overwrite == "true")
    if asked.across is not None and asked.per_class:
        raise SettingsError("--across shows one metric, and --per_class the recall of each class: leave out one")
    table, lines = compare(asked.runs, asked.metrics, asked.by, asked.per_class, asked.force, asked.across)
    paper = table if asked.across is None else across(table, asked.across)
    for line in lines:
        print(line)
    print_table(paper)
    with ExitStack() as held:
        for file in asked.output:
            held.enter_context(sole_output(file))
        for file in asked.output:
            write(table if file.suffix.lower() in (".csv", ".html") else paper, file)
            print(f"written: {file}", flush=True)


def compare(
    places: Sequence[Path],
    metrics: Sequence[str],
    source: Source | None,
    per_class: bool,
    force: bool,
    column: str | None = None,
) -> tuple[Table, list[str]]:
    """Read runs and make their table.

    Args:
        places: Folders of runs, or folders with such folders.
        metrics: The metrics; empty for the default ones.
        source: What of the runs is compared; None for the first that any run has.
        per_class: Whether the recall of each class is shown.
        force: Whether runs are compared that cannot be.
        column: An axis of a study that is a column even if the runs have one level of it.

    Returns:
        The table, and a line about each folder or run that is left out.

    Raises:
        SettingsError: There is nothing to compare, a metric is not there, or the runs cannot be compared.
    """
    folders, lines = find_runs(places)
    runs, left_out = read_runs(folders)
    lines += left_out
    if not runs:
        raise SettingsError("\n  ".join(["there is no run to compare", *(lines or map(str, places))]))
    source = choose_source(runs, source, metrics)
    results, without = results_of(runs, source)
    lines += without
    studies = list(study_of([result.run for result in results]))
    axes = {axis: levels for _, study in studies for axis, levels in axes_of(study).items()}
    found = columns(results, axes, column)
    cells = all(result.run.cell is not None for result in results)
    differing = differences(results, found.values, cells)
    if differing and not force:
        raise SettingsError(refusal(differing))
    names = choose_metrics(results, metrics)
    table = Table(found.titles, names, rows_of(results, found, names, axes), forced=differing)
    titles = {str((result.run.cell or {}).get("study") or "") for result in results}
    table.title = titles.pop() if len(titles) == 1 else ""
    table.caption, table.notes = caption_of(results, names, found.beside), lacking_notes(table.rows, names)
    for file, study in studies:
        add_published(table, file, study, [result.run for result in results])
    if per_class:
        table.class_names = classes_by_labels(results)
        if not table.class_names:
            raise SettingsError("--per_class needs the recall of each class, which test_metrics.json has: --by test")
    return table, lines


def write(table: Table, file: Path) -> None:
    """Write a table to a file, in the format of its ending."""
    from tailmatch.command_line.comparison import formats  # the page needs Jinja2, which takes time to import

    if file.suffix.lower() == ".html":
        from tailmatch.command_line.comparison.page import html_text

        text = html_text(table)
    else:
        text = {".md": formats.markdown, ".csv": formats.csv_text, ".tex": formats.latex}[file.suffix.lower()](table)
    with whole_file(file) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))  # names that UTF-8 cannot hold
