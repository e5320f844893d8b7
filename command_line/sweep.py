"""`tailmatch sweep`: run all trainings and tests that the file of a study describes."""

import argparse
import shlex
import sys
from collections.abc import Sequence
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
        from tailmatch.command_line.studies import checks
        from tailmatch.command_line.studies.cells import cells_of, chosen_cells, with_needed
        from tailmatch.command_line.studies.reading import levels_where, read_study, study_file
        from tailmatch.datamodules.arguments import SettingsError
    file = study_file(asked.study)
    study = read_study(file)
    checks.check_extra(extra)
    checks.check_classes(extra, study)
    checks.check_compare(study.compare, str(file))
    checks.check_published(study, file)
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
    checks.say_former(out, {cell.name for cell in cells})
    sys.exit(code)


def run(study: "Study", cells: "Sequence[Cell]", out: Path, jobs: int | None, extra: Sequence[str] = ()) -> int:
    """Run the cells of a study, or its search; say how it went, and return the exit code."""
    from tailmatch.command_line.studies import checks
    from tailmatch.command_line.studies.places import environments, usable_cores, visible_gpus
    from tailmatch.command_line.studies.record import Record
    from tailmatch.command_line.studies.running import Runner
    from tailmatch.command_line.studies.search import Search
    from tailmatch.datamodules.output_files import check_writable, whole_file

    places = environments(jobs, study.threads, visible_gpus(), usable_cores())
    for cell in cells:
        Record.of(cell, study.title, out)  # refuses a folder of something else, before anything is run
    check_writable(out / "study.yaml")
    checks.check_title(study, out)
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


def show_table(out: Path, words: Sequence[str]) -> None:
    """Print what `tailmatch compare` shows of a study, and how to get it again."""
    from tailmatch.command_line import compare
    from tailmatch.datamodules.arguments import SettingsError

    print(f"tailmatch compare {shlex.join([str(out), *words])}", flush=True)
    try:
        compare.main([str(out), *words])
    except SettingsError as error:
        print(error, flush=True)
