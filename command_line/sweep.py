"""`tailmatch sweep`: run all trainings and tests that the file of a study describes."""

import argparse
import difflib
import shlex
import sys
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

from tailmatch.command_line.signals import SIGNALS

if TYPE_CHECKING:
    from tailmatch.command_line.studies.cell import Cell
    from tailmatch.command_line.studies.study import Study

EPILOG = """\
A study is a YAML file:

  title: Digits                      what the table is called
  configs: [demo.yaml]               settings of all trainings; `data`, `model` and `trainer` may follow
  axes:                              what is compared: all combinations of their levels
    method:
      FixMatch: {}
      FixMatch + DebiasPL: callbacks/debiaspl.yaml
    rate: {option: model.optimizer.lr, values: [0.03, 0.1]}
  seeds: 3                           or a list of them

docs/studies.md describes the rest. examples:
  tailmatch sweep studies/demo.yaml --dry-run        what would be run, and how long it takes
  tailmatch sweep studies/demo.yaml --out runs/demo-study --jobs 2
  tailmatch sweep studies/demo.yaml --where method=FixMatch seed=0
  tailmatch sweep mine.yaml --data.root /data        options of `tailmatch fit` may follow, for all trainings
"""


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="tailmatch sweep",
        usage="tailmatch sweep STUDY [--out FOLDER] [--jobs N] [--where AXIS=LEVEL ...] [--cell I] [--dry-run] "
        "[option of `tailmatch fit` ...]",
        description="Train and test every cell of a study: each combination of levels with each seed. What is done is "
        "skipped, what was stopped or killed continues exactly, and a cell that fails does not stop the others. "
        "The same command on several machines with a shared folder shares the cells.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("study", metavar="STUDY", help="A file, or the name of one of this package (studies/demo.yaml).")
    made.add_argument("--out", type=Path, help="Folder of the runs (default: runs/NAME-study).")
    made.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="How many trainings run at a time. The default is one on each GPU; without GPUs one, or, if the study has "
        "`threads`, as many as the cores allow.",
    )
    made.add_argument(
        "--where", nargs="+", default=[], metavar="AXIS=LEVEL", help="Only these levels (a,b for several) and seeds."
    )
    made.add_argument(
        "--cell", type=int, metavar="I", help="Only this cell, from 0 on, and what it needs: for an array of SLURM."
    )
    made.add_argument(
        "--dry-run", "--dry_run", action="store_true", help="Run nothing: list the cells, and time a few steps of each."
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run `tailmatch sweep`.

    Raises:
        SettingsError: The study, or what is asked for, cannot be run.
    """
    asked, extra = parser().parse_known_args(args)
    with SIGNALS.while_importing():  # only here, so that the help and a wrong argument take no seconds
        from tailmatch.command_line.studies.cells import cells_of, chosen_cells, with_needed
        from tailmatch.command_line.studies.reading import levels_where, read_study, study_file
        from tailmatch.datamodules.arguments import SettingsError
    file = study_file(asked.study)
    study = read_study(file)
    check_extra(extra)
    check_compare(study.compare, str(file))
    check_published(study, file)
    out = asked.out or Path("runs", f"{file.stem}-study")
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out is {out}, which is a file; it must be a folder, or a path where one can be made")
    if study.search is not None:
        if asked.where or asked.cell is not None:
            raise SettingsError("--where and --cell are for studies with axes; this one searches")
        if asked.dry_run:
            from tailmatch.command_line.studies.costs import show_search

            show_search(study, out, asked.jobs, tuple(extra))
            return
        sys.exit(run(study, [], out, asked.jobs, extra))
    cells = cells_of(study, extra)
    chosen = chosen_cells(cells, *levels_where(asked.where, study))
    if not chosen:
        raise SettingsError(f"--where {shlex.join(asked.where)} leaves none of the {len(cells)} cells")
    numbers = {cell.name: number for number, cell in enumerate(chosen)}
    if asked.cell is not None:
        if not 0 <= asked.cell < len(chosen):
            raise SettingsError(f"--cell is {asked.cell}; it must be from 0 to {len(chosen) - 1}")
        chosen = [chosen[asked.cell]]
    if asked.dry_run:
        from tailmatch.command_line.studies.costs import show_plan

        show_plan(study, with_needed(chosen, cells), numbers, out, asked.jobs)
        return
    code = run(study, with_needed(chosen, cells), out, asked.jobs)
    say_former(out, {cell.name for cell in cells})
    sys.exit(code)


def check_extra(extra: Sequence[str]) -> None:
    """Check the options that follow, before anything is run.

    Raises:
        SettingsError: One is misspelled, or is one that `sweep` gives.
    """
    from tailmatch.command_line.studies.reading import OF_SWEEP
    from tailmatch.command_line.typed import OPTIONS, Typed
    from tailmatch.datamodules.arguments import SettingsError

    for word in extra:
        name = word.split("=")[0].removeprefix("--")
        if name in OF_SWEEP or (name in ("config", "-c") and word.startswith("-")):
            advice = "each cell has its own" if name in OF_SWEEP else "put it into the file of the study"
            raise SettingsError(f"sweep takes no {word.split('=')[0]}: {advice}")
    if extra and not extra[0].startswith("-"):
        raise SettingsError(f"sweep takes one study, and there is {extra[0]} besides")
    known = ("out", "jobs", "where", "cell", "dry-run", *OPTIONS)
    for option, _ in Typed.read(["fit", *extra]).options:
        name = option.removeprefix("--").split(".")[0].removesuffix("+")
        if name not in known:
            near = "".join(f"\n  Did you mean: --{each}?" for each in difflib.get_close_matches(name, known, n=1))
            raise SettingsError(f"unrecognized arguments: {option}{near}")


def check_compare(words: Sequence[str], name: str) -> None:
    """Check the options for the table of a study, before anything is run.

    Raises:
        SettingsError: `compare` does not know one, or it names files.
    """
    from tailmatch.command_line import compare
    from tailmatch.datamodules.arguments import SettingsError

    try:
        asked = compare.parser().parse_args(["runs", *words])
    except SystemExit as error:
        raise SettingsError(f"{name}: compare is {shlex.join(words)!r}; see `tailmatch compare --help`") from error
    if asked.output or len(asked.runs) > 1:
        raise SettingsError(f"{name}: compare is {shlex.join(words)!r}; it cannot name runs or files")


def check_published(study: "Study", file: Path) -> None:
    """Check the published numbers of a study, before anything is run.

    Raises:
        SettingsError: They have another form than `compare` reads, or name an axis that the study does not have.
    """
    from tailmatch.command_line.comparison.published import published_numbers
    from tailmatch.command_line.yaml_text import parse_yaml
    from tailmatch.datamodules.arguments import SettingsError

    for number in published_numbers(file, parse_yaml(study.text, str(file))):
        unknown = [axis for axis in number.levels if axis not in study.axes]
        if unknown and study.axes:
            raise SettingsError(
                f"a published row of {number.source} in {file} names the axis {unknown[0]}; the study has "
                f"{', '.join(study.axes)}"
            )


def check_title(study: "Study", out: Path) -> None:
    """Check that a folder does not hold another study.

    Raises:
        SettingsError: The copy of the study in the folder has another title.
    """
    from tailmatch.command_line.yaml_text import parse_yaml
    from tailmatch.datamodules.arguments import SettingsError

    copy = out / "study.yaml"
    content = parse_yaml(copy.read_text(encoding="utf-8"), str(copy)) if copy.is_file() else None
    title = content.get("title") if isinstance(content, dict) else None
    if title is not None and title != study.title:
        raise SettingsError(
            f"{out} holds the study {title!r}, and this one is {study.title!r}: choose another --out, or remove "
            f"{copy} if it is the same study under a new title"
        )


def run(study: "Study", cells: "Sequence[Cell]", out: Path, jobs: int | None, extra: Sequence[str] = ()) -> int:
    """Run the cells of a study, or its search; say how it went, and return the exit code."""
    from tailmatch.command_line.studies.places import environments, usable_cores, visible_gpus
    from tailmatch.command_line.studies.record import Record
    from tailmatch.command_line.studies.running import Runner
    from tailmatch.command_line.studies.search import Search
    from tailmatch.datamodules.output_files import check_writable, whole_file

    places = environments(jobs, study.threads, visible_gpus(), usable_cores())
    for cell in cells:
        Record.of(cell, study.title, out)  # refuses a folder of something else, before anything is run
    check_writable(out / "study.yaml")
    check_title(study, out)
    search = None if study.search is None else Search(study, out, tuple(extra))
    with whole_file(out / "study.yaml") as partial:
        partial.write_text(study.text, encoding="utf-8")
    outcome = Runner(study.title, cells, out, places, source=search).run()
    for line in outcome.failures():
        print(line, file=sys.stderr, flush=True)
    for line in [] if search is None else search.summary():
        print(line, flush=True)
    print(f"{len(outcome.done)} of {len(outcome.done) + len(outcome.failed)} done", flush=True)
    if search is None and outcome.done:
        show_table(out, study.compare)
    return 1 if outcome.failed else 0


def say_former(out: Path, names: "AbstractSet[str]") -> None:
    """Name the runs in a folder that are no cells of the study any more, but rows of its table."""
    from tailmatch.command_line.studies.record import FILE

    former = sorted(path.parent.name for path in out.glob(f"*/{FILE}") if path.parent.name not in names)
    if former:
        shown = ", ".join(former[:10]) + (f" and {len(former) - 10} more" if len(former) > 10 else "")
        print(f"{out} also holds runs that the study no longer has, and shows them: {shown}", flush=True)


def show_table(out: Path, words: Sequence[str]) -> None:
    """Print what `tailmatch compare` shows of a study, and how to get it again."""
    from tailmatch.command_line import compare
    from tailmatch.datamodules.arguments import SettingsError

    print(f"tailmatch compare {shlex.join([str(out), *words])}", flush=True)
    try:
        compare.main([str(out), *words])
    except SettingsError as error:
        print(error, flush=True)
