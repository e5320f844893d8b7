"""Search for good settings with Optuna: each trial is a cell, and machines that share the folder share the search."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailmatch.callbacks.reports.metrics_rows import number, read_metrics
from tailmatch.command_line.studies.cell import Cell
from tailmatch.command_line.studies.cells import cell_of, digest_of
from tailmatch.command_line.studies.study import Part, Study
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.locks import InUseError, sole_writer

if TYPE_CHECKING:
    import optuna

FILE = "search.log"
LOCK = "search.lock"


class Search:
    """Asks Optuna for trials, tells it their results, and ends trainings that are worse than the others.

    The trials are in a file of the study's folder. Trials that another process has begun and not ended are run again,
    by whoever gets the lock of their cell; so a search that was killed continues.

    Args:
        study: The study, which has a `search`.
        out: The folder of the study.
        extra: Words that are typed after the settings of each trial.

    Raises:
        SettingsError: Optuna is not installed, or the folder has a search of other parameters.
    """

    def __init__(self, study: Study, out: Path, extra: tuple[str, ...]) -> None:
        assert study.search is not None
        self.study, self.space, self.extra, self.out = study, study.search, extra, out
        self._optuna = optuna_for(study.title)
        self._trials = self._load()
        self._numbers = dict[str, int]()  # of the trials of this process, by the names of their cells
        self._read = dict[str, tuple[int, int]]()  # when metrics.csv was read last, and its last step

    def _load(self) -> "optuna.Study":
        module = self._optuna
        module.logging.set_verbosity(module.logging.WARNING)
        self.out.mkdir(parents=True, exist_ok=True)
        file, lock = self.out / FILE, Lock(self.out / LOCK)
        lock.acquire()
        try:
            remove_torn_line(file)
        finally:
            lock.release()
        try:
            found: optuna.Study = module.create_study(
                study_name="search",
                storage=module.storages.JournalStorage(module.storages.journal.JournalFileBackend(str(file), lock)),
                sampler=module.samplers.TPESampler(seed=None),
                pruner=module.pruners.MedianPruner() if self.space.prune else module.pruners.NopPruner(),
                direction="minimize" if self.space.minimize else "maximize",
                load_if_exists=True,
            )
        except (AssertionError, LookupError, TypeError, ValueError) as error:  # of Optuna, which does not check it
            raise SettingsError(
                f"{file} is not as Optuna wrote it ({error}): remove the damaged line, or choose another --out"
            ) from error
        described = repr((self.space.metric, self.space.minimize, sorted(self.space.parameters.items())))
        if found.user_attrs.get("space", described) != described:
            raise SettingsError(f"{self.out} has a search of other parameters: choose another --out")
        found.set_user_attr("space", described)
        return found

    def more(self, free: int) -> list[Cell]:
        """Give cells for some free places: those of trials that were begun, then new ones, as long as any are left."""
        found, mine = list[Cell](), set(self._numbers.values())
        trials = self._trials.get_trials(deepcopy=False)
        for trial in trials:
            complete = trial.params.keys() == self.space.parameters.keys()  # else it is being asked for just now
            if len(found) < free and complete and not trial.state.is_finished() and trial.number not in mine:
                found.append(self._cell(trial.number, trial.params))
        for _ in range(min(free - len(found), self.space.trials - len(trials))):
            asked = self._trials.ask()
            params = {name: each.suggest(asked, name) for name, each in self.space.parameters.items()}
            found.append(self._cell(asked.number, params))
        return found

    def coming(self) -> int:
        """Count the trials that nobody has begun."""
        return max(0, self.space.trials - len(self._trials.get_trials(deepcopy=False)))

    def _cell(self, number: int, params: dict[str, Any]) -> Cell:
        cell = trial_cell(self.study, number, params, self.extra)
        self._numbers[cell.name] = number
        return cell

    def is_hopeless(self, cell: Cell) -> bool:
        """Tell Optuna the validations that are new, and ask whether the training is worth its time."""
        trial = self._report(cell)
        return trial is not None and bool(trial.should_prune())

    def _report(self, cell: Cell) -> "optuna.Trial | None":
        """Tell Optuna the validations that it does not know yet; return None if there are none."""
        file = self.out / cell.name / "metrics.csv"
        with suppress(OSError, self._optuna.exceptions.UpdateFinishedTrialError):  # another machine has told its end
            changed = file.stat().st_mtime_ns
            before, last = self._read.get(cell.name, (0, -1))
            if changed == before:
                return None
            trial: optuna.Trial = self._optuna.Trial(self._trials, self._id(cell))
            for step, value in validations(file.parent, self.space.metric):
                if step > last:
                    trial.report(value, step)
                    last = step
            self._read[cell.name] = (changed, last)
            return trial
        return None

    def ended(self, cell: Cell, failed: bool, pruned: bool) -> None:
        """Tell Optuna the result of a trial."""
        states, number = self._optuna.trial.TrialState, self._numbers[cell.name]
        if not self._trials.get_trials(deepcopy=False)[number].state.is_finished():  # by another process
            self._report(cell)
        values = [value for _, value in validations(self.out / cell.name, self.space.metric)]
        with suppress(self._optuna.exceptions.UpdateFinishedTrialError):  # another machine has just told it
            if pruned:
                self._trials.tell(number, state=states.PRUNED, skip_if_finished=True)
            elif failed or not values:
                self._trials.tell(number, state=states.FAIL, skip_if_finished=True)
            else:
                best = min(values) if self.space.minimize else max(values)
                self._trials.tell(number, best, skip_if_finished=True)

    def _id(self, cell: Cell) -> int:
        number = self._numbers[cell.name]
        return int(self._trials.get_trials(deepcopy=False)[number]._trial_id)

    def summary(self) -> list[str]:
        """Say what was found: the best trial, its options, and how to train with them."""
        trials = self._trials.get_trials(deepcopy=False)
        counts = {state: sum(trial.state.name == state for trial in trials) for state in ("COMPLETE", "PRUNED", "FAIL")}
        said = ", ".join(f"{count} {name.lower()}" for name, count in counts.items() if count)
        lines = [f"{len(trials)} of {self.space.trials} trials: {said}"]
        if counts["COMPLETE"]:
            best = self._trials.best_trial
            options = " ".join(f"--{name}={value}" for name, value in best.params.items())
            lines.append(f"best {self.space.metric}: {best.value:.4f} (trial {best.number}): {options}")
        return lines


class Lock:
    """Lock of the file of trials, which ends with its process; Optuna's own outlive one that is killed.

    Args:
        file: The lock's file.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._held = file, ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock, and take it."""
        while True:
            with suppress(InUseError):
                self._held.enter_context(sole_writer(self._file, "the search", "wait until it ends"))
                return True
            time.sleep(0.01)

    def release(self) -> None:
        """Give it back."""
        self._held.close()


def trial_cell(study: Study, number: int, params: dict[str, Any], extra: tuple[str, ...]) -> Cell:
    """Make the cell of a trial."""
    part = Part(f"trial {number}", options=params)
    cell = cell_of(study, {"trial": f"trial {number:04}"}, study.seeds[0], extra, [part])
    return replace(cell, digest=digest_of(cell, {}))


def remove_torn_line(file: Path) -> None:
    """Remove a last line without its end, as a full disk leaves it: Optuna would write the next one behind it."""
    with suppress(FileNotFoundError), file.open("r+b") as opened:
        whole = opened.read().rfind(b"\n") + 1
        if opened.tell() > whole:
            opened.truncate(whole)


def validations(folder: Path, metric: str) -> Iterator[tuple[int, float]]:
    """Yield the step and the value of each validation of a run that has a finite one."""
    for row in read_metrics(folder):
        value = number(row.get(metric))
        if value is not None and math.isfinite(value):
            yield int(row["step"]), value


def optuna_for(what: str) -> Any:
    """Import Optuna.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        import optuna
        import optuna.storages.journal
    except ModuleNotFoundError as error:
        raise SettingsError(f"{what} searches, which needs Optuna: pip install 'tailmatch[search]'") from error
    return optuna
