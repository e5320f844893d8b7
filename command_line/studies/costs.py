"""Show what a sweep would run, and how long it takes: as measured before, or by a few steps of each setting."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tailmatch.callbacks.reports.durations import duration
from tailmatch.command_line.errors import message_for_user
from tailmatch.command_line.studies.cell import Cell
from tailmatch.command_line.studies.places import environments, usable_cores, visible_gpus
from tailmatch.command_line.studies.record import Record
from tailmatch.command_line.studies.search import trial_cell
from tailmatch.command_line.studies.study import Study
from tailmatch.command_line.studies.values import option_text


def show_plan(study: Study, cells: Sequence[Cell], numbers: Mapping[str, int], out: Path, jobs: int | None) -> None:
    """Print the cells with what is known of each, and then the time of those that are left.

    Settings of which a cell is done take as long as it took. Of others, a few steps are run, one setting after the
    other; the time is that of the training alone.

    Args:
        study: The study.
        cells: The cells that would be run.
        numbers: What `--cell` calls each, by its name; those that others need may have no number.
        out: The folder of the study.
        jobs: How many are run at a time; None for the default.
    """
    records = [Record.of(cell, study.title, out) for cell in cells]
    print(f"{study.title}: {len(cells)} cells in {out}")
    for cell, record in zip(cells, records, strict=True):
        needs = f" (needs {', '.join(sorted(cell.needs.values()))})" if cell.needs else ""
        print(f"  {numbers.get(cell.name, ''):>4}  {state(cell, record):9}  {cell}{needs}", flush=True)
    left = [cell for cell, record in zip(cells, records, strict=True) if not record.is_done(cell)]
    if not left:
        return
    print("\ntime of each, as measured, or that of the steps by a few of them (Ctrl-C if you know enough):", flush=True)
    known = {_levels(cell): record.seconds for cell, record in zip(cells, records, strict=True) if record.is_done(cell)}
    total, unknown, said = 0.0, 0, set[str]()
    for levels in dict.fromkeys(map(_levels, left)):
        same = [cell for cell in left if _levels(cell) == levels]
        seconds, how = (known[levels], "as measured") if levels in known else _measured(same[0], out, study.threads)
        if math.isfinite(seconds):
            total += seconds * len(same)
        else:
            unknown += len(same)
            how = "as above" if how in said else how
            said.add(how)
        print(f"  {', '.join(levels) or study.title}: {len(same)} x {_time(seconds)}: {how}", flush=True)
    places = len(environments(jobs, study.threads, visible_gpus(), usable_cores()))
    rest = f", and {unknown} cells of which the time is not known" if unknown else ""
    print(f"in all: {duration(total)}, one after the other{rest}; {places} run at a time", flush=True)


def show_search(study: Study, out: Path, jobs: int | None, extra: tuple[str, ...]) -> None:
    """Print what a search would run, and the time of all trials as long as a training with the first of all values."""
    assert study.search is not None
    params = {name: each.example() for name, each in study.search.parameters.items()}
    seconds, how = _measured(trial_cell(study, 0, params, extra), out, study.threads)
    shown = ", ".join(f"{name} {option_text(value)}" for name, value in params.items())
    print(f"{study.title}: a search of {study.search.trials} trials in {out}, for the best {study.search.metric}")
    print(f"  one with {shown}: {_time(seconds)}: {how}")
    if math.isfinite(seconds):
        places = len(environments(jobs, study.threads, visible_gpus(), usable_cores()))
        early = ", less what ends early" if study.search.prune else ""
        print(f"in all: {duration(seconds * study.search.trials)}, one after the other{early}; {places} run at a time")


def state(cell: Cell, record: Record) -> str:
    """Say in a word how far a cell is."""
    if record.is_done(cell):
        return "done"
    return "failed" if record.failed else "begun" if record.done or record.seconds else "to run"


def _levels(cell: Cell) -> tuple[str, ...]:
    return tuple(cell.levels.values())


def _measured(cell: Cell, out: Path, threads: int | None) -> tuple[float, str]:
    """Run a few steps of a cell; return the seconds of the training, and how they were found."""
    if cell.commands[0].split()[0] != "fit":
        return math.nan, "it is no training"
    import torch

    from tailmatch.command_line.step_times import time_steps

    before = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        cell.write_settings(out, Path(folder))
        words = cell.words(cell.commands[0], out, Path(folder))
        try:
            torch.set_num_threads(threads or before)
            times = time_steps([word for word in words[1:] if not word.startswith(("--run_dir=", "--ckpt_path="))])
        except Exception as error:
            message = message_for_user(error) or f"{type(error).__name__}: {error}"
            missing = [needed for needed in cell.needs.values() if needed in message]  # as in the path of its labels
            return math.nan, f"known when {missing[0]} is done" if missing else message
        finally:
            torch.set_num_threads(before)
    if not math.isfinite(times.steps):
        return math.nan, "its length is not known"
    return times.training, f"{times.steps:,.0f} steps, {1 / times.step:.3g} a second"


def _time(seconds: float) -> str:
    return duration(seconds) if math.isfinite(seconds) else "?"
