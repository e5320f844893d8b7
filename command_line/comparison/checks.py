"""Find what makes runs not comparable: other images, other classes, another way to evaluate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tailmatch.command_line.comparison.results import Result, facts_value, some_of
from tailmatch.command_line.comparison.runs import Run
from tailmatch.datamodules.class_names import names_digest

MOST_NAMED = 6
"""The number of runs that a message names; of more, it says how many."""

NOT_OF_THE_SPLIT = {
    "labeled_batch_size", "unlabeled_ratio", "steps_per_epoch", "labeled_sampling", "pseudo_labels", "label_noise",
    "added_labels",
    "image_size", "mean", "std", "horizontal_flip",
}  # fmt: skip
"""Settings of the data that do not change which images are labeled, unlabeled or held out."""

FROM_FILES = ("ImageFolder", "ImageTable")
"""Data whose root or table says which data they are."""


@dataclass
class Difference:
    """What differs between runs that are to be in one table: the values, each with the names of its runs."""

    what: str
    values: dict[str, list[str]]

    def __str__(self) -> str:
        parts = [f"{value} in {some_of(names, MOST_NAMED)}" for value, names in self.values.items()]
        return f"{self.what}: {'; '.join(parts)}"


def differences(results: Sequence[Result], groups: Sequence[tuple[str, ...]], cells: bool) -> list[Difference]:
    """List what makes results not comparable; empty if they are.

    What is not known of a run, since it was made by another version or by a trainer in Python, is not held against it.
    Test images that the seed of the split draws must be those of the other runs with that seed, and all others must be
    the same in all runs. Runs of the same data and seed must have the same split; where the data differ, they are
    columns.

    Args:
        results: The results.
        groups: The values of the columns of each.
        cells: Whether the columns are the axes of a sweep, so that other settings may differ within a row.
    """
    found = [*_over_all(results), *_splits(results), *_unfinished(results), *_repeated(results, groups)]
    return found + (list(_within_rows(results, groups)) if cells else [])


def refusal(found: Sequence[Difference]) -> str:
    """Say what differs, and what to do."""
    lines = "".join(f"\n  {difference}" for difference in found)
    return f"these runs cannot be compared in one table:{lines}\n  Compare them in parts, or all the same by --force"


def _over_all(results: Sequence[Result]) -> Iterator[Difference]:
    runs = [result.run for result in results]
    for what in ("evaluation", "best by", "chosen on", "evaluated images"):
        yield from _differing(what, runs, [result.protocol.get(what) for result in results])
    numbers = list(map(_number_of_classes, results))
    classes = list(_differing("number of classes", runs, numbers))
    yield from classes or _differing("class names", runs, list(map(_names, results)))
    if not classes:
        yield from _evaluated_sets(results)


def _evaluated_sets(results: Sequence[Result]) -> Iterator[Difference]:
    """Compare the evaluated images; runs without digests by the settings of their data."""
    runs = [result.run for result in results]
    name = "test" if results[0].protocol.get("evaluated images") == "test images" else "validation"
    sets = [_set(run, name) for run in runs]
    fixed = [None if facts_value(run, "drawn", name) else text for run, text in zip(runs, sets, strict=True)]
    found = list(_differing(f"{name} images", runs, fixed))
    for seed in dict.fromkeys(run.split_seed for run in runs):
        of_seed = [text if run.split_seed == seed else None for run, text in zip(runs, sets, strict=True)]
        found += [] if found else _differing(f"{name} images of seed {seed}", runs, of_seed)
    if not found and not all(sets):
        found += _differing("data", runs, [_data(run, name) for run in runs])
    yield from found


def _set(run: Run, name: str) -> str | None:
    digest = facts_value(run, "digests", name)
    images = facts_value(run, "images", name)
    return None if digest is None else f"{images} images of digest {str(digest)[:8]}"


def _data(run: Run, name: str) -> str | None:
    """Name the data of a run without digests by its settings; None if they are not known."""
    kind = run.settings.get("data")
    if kind is None:
        return None
    places = [str(run.data[key]) for key in ("table", "root") if run.data.get(key)] if kind in FROM_FILES else []
    held_out = ("test_holdout",) if name == "test" else ("test_holdout", "val_holdout", "labeled_holdout")
    holdouts = [f"{key} {run.data[key]}" for key in held_out if run.data.get(key)]
    return ", ".join([" ".join([kind, *places[:1]]), *holdouts])


def _number_of_classes(result: Result) -> str | None:
    number = facts_value(result.run, "classes", "number") or len(result.recall)
    return str(number) if number else None


def _names(result: Result) -> str | None:
    digest = names_digest(result.recall) if result.recall else facts_value(result.run, "classes", "digest")
    first = ", ".join(list(result.recall)[:3])
    return None if digest is None else f"{first}{', ...' if first else ''} (digest {str(digest)[:8]})"


def _splits(results: Sequence[Result]) -> Iterator[Difference]:
    """Compare the splits of the same data by the same seed."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for result in results:
        run = result.run
        data = [f"{name}={text}" for name, text in run.settings.items() if _is_of_the_split(name)]
        groups.setdefault((run.split_seed, *data), []).append(run)
    for (seed, *_), runs in groups.items():
        for digest, what in (("pool", "training images"), ("split", "split")):
            values = [facts_value(run, "digests", digest) for run in runs]
            shown = [value and f"digest {str(value)[:8]}" for value in values]
            found = list(_differing(f"{what} of seed {seed}", runs, shown))
            yield from found
            if found:
                break


def _is_of_the_split(name: str) -> bool:
    return (name == "data" or name.startswith("data.")) and name.split(".")[1:2] not in [[n] for n in NOT_OF_THE_SPLIT]


def _unfinished(results: Sequence[Result]) -> Iterator[Difference]:
    """Find runs that are not finished beside others, and tests of a last checkpoint that is the last no more."""
    states = []
    for result in results:
        finished, steps = result.run.facts.get("finished"), result.run.facts.get("steps")
        at_the_end = str(result.protocol.get("evaluation")).startswith("last ")
        measured = result.step if at_the_end and result.step is not None else steps
        state = None if finished is None else "finished" if finished else f"unfinished at step {measured}"
        if finished and result.protocol.get("evaluation") == "last checkpoint" and result.step not in (None, steps):
            state = f"tested at step {result.step} of {steps} (test it again)"
        states.append(state)
    yield from _differing("training", [result.run for result in results], states)


def _repeated(results: Sequence[Result], groups: Sequence[tuple[str, ...]]) -> Iterator[Difference]:
    """Find runs of the same settings and seed."""
    same: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for result, group in zip(results, groups, strict=True):
        same.setdefault((group, result.run.seed), []).append(result.run.name)
    for (group, seed), names in same.items():
        if len(names) > 1:
            yield Difference("the same settings and seed", {f"{', '.join(group)}, seed {seed}": names})


def _within_rows(results: Sequence[Result], groups: Sequence[tuple[str, ...]]) -> Iterator[Difference]:
    """Find settings that differ between the seeds of a cell, as where two studies are mixed; paths may differ."""
    for group in dict.fromkeys(groups):
        runs = [
            result.run
            for result, other in zip(results, groups, strict=True)
            if other == group and result.run.config  # a cell that only tests the checkpoint of another has none
        ]
        for name in dict.fromkeys(name for run in runs for name in run.settings):
            values = [run.settings.get(name) for run in runs]
            if not any("/" in value for value in values if value):
                yield from _differing(f"{name} of {', '.join(group)}", runs, values)


def _differing(what: str, runs: Sequence[Run], values: Sequence[str | None]) -> Iterator[Difference]:
    """Yield a difference if the values that are known are not all equal."""
    names: dict[str, list[str]] = {}
    for run, value in zip(runs, values, strict=True):
        if value is not None:
            names.setdefault(value, []).append(run.name)
    if len(names) > 1:
        yield Difference(what, dict(sorted(names.items(), key=lambda item: len(item[1]))))
