"""The numbers of a run that are compared, and how they were measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tailmatch.callbacks.reports.metrics_rows import number
from tailmatch.command_line.comparison.runs import Run, as_float
from tailmatch.datamodules.arguments import SettingsError

Source: TypeAlias = Literal["test", "last_evaluations", "best_validation", "last_validation"]

FILES: dict[Source, str] = {
    "test": "test_metrics.json (tailmatch test --run_dir RUN --ckpt_path best)",
    "last_evaluations": "last_evaluations.json (--trainer.callbacks+=LastEvaluations of the fit)",
    "best_validation": "metrics.csv with validations",
    "last_validation": "metrics.csv with validations",
}
"""Where the numbers of each source are, for messages."""

DEFAULT = ("balanced_accuracy", "top1", "macro_f1", "many", "medium", "few")
"""The metrics that are compared unless others are asked for."""

ALIASES = {"head": "many", "tail": "few"}


@dataclass
class Result:
    """The numbers of a run.

    Attributes:
        run: The run.
        metrics: The metrics of the run by name; NaN where the file has it.
        recall: The recall of each class by name; None for a class without images. Empty if it is not known.
        protocol: How the numbers were measured, by what is to be equal; None for what is not known.
        step: The step of the weights that were measured; None if it is not known.
    """

    run: Run
    metrics: dict[str, float]
    recall: dict[str, float | None] = field(default_factory=dict)
    protocol: Mapping[str, str | None] = field(default_factory=dict)
    step: int | None = None


def choose_source(runs: Sequence[Run], asked: Source | None, metrics: Sequence[str]) -> Source:
    """Choose what of the runs is compared: their tests, or what comes first that any of them has.

    Raises:
        SettingsError: No run has numbers of the source that is asked for, or the metrics are of another source.
    """
    of_validation = [name for name in metrics if name.startswith(("val/", "train/"))]
    if of_validation and asked in ("test", "last_evaluations"):
        raise SettingsError(
            f"{of_validation[0]} is no metric of --by {asked}: leave out --by, or take --by best_validation or "
            "--by last_validation"
        )
    order: tuple[Source, ...] = ("test", "last_evaluations", "best_validation")
    order = ("last_validation",) if of_validation else order
    for source in order if asked is None else (asked,):
        if any(READ[source](run) is not None for run in runs):
            return source
    wanted = FILES["best_validation"] if of_validation else FILES["test" if asked is None else asked]
    named = some_of([run.name for run in runs])
    raise SettingsError(f"there is nothing to compare: no run has {wanted}; there are {named}")


def results_of(runs: Sequence[Run], source: Source) -> tuple[list[Result], list[str]]:
    """Read the numbers of runs from one source, and give a line about those that have none."""
    results, without = [], []
    for run in runs:
        result = READ[source](run)
        if result is None:
            without.append(run.name)
        else:
            results.append(result)
    return results, [f"left out, since there is no {FILES[source]}: {some_of(without)}"] if without else []


def some_of(names: Sequence[str], most: int = 10) -> str:
    """List names; of many the first ones, and how many more there are."""
    left_out = len(names) - most
    return ", ".join(names[:most]) + (f" and {left_out} more" if left_out > 0 else "")


def choose_metrics(results: Sequence[Result], asked: Sequence[str]) -> list[str]:
    """Choose the metrics of a comparison.

    Raises:
        SettingsError: No run has a metric that is asked for.
    """
    known = list(dict.fromkeys(name for result in results for name in result.metrics))
    if not asked:
        chosen = [name for name in DEFAULT if name in known]
        if chosen:
            return chosen
        raise SettingsError(f"no run has {', '.join(DEFAULT)}: name others by --metrics; there are {', '.join(known)}")
    plain = list(dict.fromkeys(_plain(name) for name in asked))
    for name in plain:
        if name not in known:
            raise SettingsError(f"--metrics has {name}, and no run has it; there are {', '.join(sorted(known))}")
    return plain


def _plain(name: str) -> str:
    """Give the name of a metric without the stage; names of other numbers of `metrics.csv` stay."""
    name = name.removeprefix("test/").removeprefix("val/")
    return ALIASES.get(name, name)


def _test(run: Run) -> Result | None:
    if run.test is None:
        return None
    recall = {name: None if value is None else as_float(value) for name, value in run.test.get("recall", {}).items()}
    metrics = {name: as_float(value) for name, value in run.test["metrics"].items()}
    step = run.test.get("step")
    protocol = _checkpoint(run) | {"evaluated images": "test images"}
    return Result(run, metrics, recall, protocol, step if isinstance(step, int) else None)


def _checkpoint(run: Run) -> dict[str, str | None]:
    """Say which weights were tested, and by what they were chosen; None for what is not known."""
    checkpoint = (run.test or {}).get("checkpoint")
    members = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    stems = sorted({Path(str(each)).stem for each in members if each is not None})
    if len(stems) != 1:
        return {"evaluation": " and ".join(f"checkpoint {stem}" for stem in stems) or None}
    [stem] = stems
    if stem == "last":
        return {"evaluation": "last checkpoint"}
    if stem != "best" and not stem.startswith("best-"):
        return {"evaluation": f"checkpoint {stem}"}
    monitors, metric = _monitors(run), stem.removeprefix("best").removeprefix("-")
    by = next((name for name in monitors if not metric or name.rpartition("/")[2] == metric), metric or None)
    return {"evaluation": "best checkpoint", "best by": by, "chosen on": _validated(run)}


def _monitors(run: Run) -> list[str]:
    checkpoint = run.config.get("checkpoint")
    monitors = checkpoint.get("monitors") if isinstance(checkpoint, dict) else None
    return [str(name) for name in monitors] if isinstance(monitors, list) else []


def _last_evaluations(run: Run) -> Result | None:
    if run.last is None:
        return None
    metrics = {name: as_float(kinds["mean"]) for name, kinds in run.last["metrics"].items()}
    evaluation = f"mean of the last {run.last['evaluations']} evaluations"
    return Result(run, metrics, protocol={"evaluation": evaluation, "evaluated images": _validated(run)})


def _validated(run: Run) -> str | None:
    """Name the images of the validations; None if it is not known."""
    if not run.data:
        return None
    return "test images" if run.data.get("validate_on_test") is True else "validation images"


def _last_validation(run: Run) -> Result | None:
    return _of_row(run, run.curve[-1], "last validation") if run.curve else None


def _best_validation(run: Run) -> Result | None:
    monitors = _monitors(run)
    monitor = monitors[0] if monitors else "val/balanced_accuracy"
    values = [number(row.get(monitor)) for row in run.curve]
    finite = [(value, -place) for place, value in enumerate(values) if value is not None and math.isfinite(value)]
    if not finite:
        return None
    checkpoint = run.config.get("checkpoint")
    smallest = isinstance(checkpoint, dict) and checkpoint.get("mode") == "min"
    _, place = min((value, -place) for value, place in finite) if smallest else max(finite)
    result = _of_row(run, run.curve[abs(place)], "best validation")
    if result is not None:
        result.protocol = {**result.protocol, "best by": monitor, "chosen on": _validated(run)}
    return result


def _of_row(run: Run, row: dict[str, str], evaluation: str) -> Result | None:
    found = {name: number(text) for name, text in row.items() if name and "/" in name}
    metrics = {name.removeprefix("val/"): as_float(value) for name, value in found.items() if value is not None}
    if not metrics:
        return None
    protocol = {"evaluation": evaluation, "evaluated images": _validated(run)}
    return Result(run, metrics, protocol=protocol, step=int(row["step"]))


def described(protocol: Mapping[str, str | None]) -> str:
    """Say how numbers were measured, in a few words."""
    by, chosen_on = protocol.get("best by"), protocol.get("chosen on")
    words = [protocol.get("evaluation") or "unknown checkpoint", *([f"by {by}"] if by else [])]
    return " ".join(words) + (f", chosen on {chosen_on}" if chosen_on == "test images" else "")


READ: dict[Source, Callable[[Run], Result | None]] = {
    "test": _test,
    "last_evaluations": _last_evaluations,
    "best_validation": _best_validation,
    "last_validation": _last_validation,
}
"""What reads the numbers of a run from each source; it returns None where a run has none."""


def facts_value(run: Run, *names: str) -> Any:
    """Read a plain value of `run.json`; None if it is not there, or is a list or a mapping."""
    value: Any = run.facts
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return None if isinstance(value, list | dict) else value
