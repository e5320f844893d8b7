"""A study: what is compared, over which seeds, and the settings that all its trainings share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tailmatch.command_line.studies.search_space import SearchSpace

COMMANDS = ("fit", "test --ckpt_path best")
"""What is run for each combination, unless the study says otherwise."""

MOST_CELLS = 100_000


@dataclass(frozen=True)
class Part:
    """What the study as a whole, a level or a combination adds to the command lines of its trainings.

    Attributes:
        name: What it is, for messages.
        configs: Configurations, as `--config` takes them; their settings come before those of the part itself.
        contents: The settings in each of `configs`.
        settings: Settings as in a configuration.
        options: Options of the command line by name, without dashes, which come after all configurations.
        needs: Names of other trainings that must be done first, and the levels in which they differ from this one.
        commands: The commands that are run; None for those of the study.
        shown: Whether the results are rows of the table; None for what the study says.
    """

    name: str
    configs: tuple[str, ...] = ()
    contents: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    commands: tuple[str, ...] | None = None
    shown: bool | None = None


Where = Mapping[str, tuple[str, ...]]
"""Levels by axis; a combination is meant if it has one of them on each axis that is named."""


@dataclass(frozen=True)
class Study:
    """What is compared, read from a file by `read_study`.

    Attributes:
        title: What the table is called.
        text: The content of the file.
        common: What all trainings share.
        axes: Each axis with its levels, in the order of the file. A study without axes compares nothing but seeds.
        combinations: What some combinations of levels have besides.
        exclude: Combinations of levels that are not run.
        seeds: The seeds of each combination.
        threads: The number of threads of a training; None for as many as its share of the cores.
        search: What is searched, instead of axes; None for nothing.
        compare: Words of `tailmatch compare` that lay out the table, after the folder.
    """

    title: str
    text: str
    common: Part
    axes: Mapping[str, Mapping[str, Part]]
    combinations: tuple[tuple[Where, Part], ...]
    exclude: tuple[Where, ...]
    seeds: tuple[int, ...]
    threads: int | None
    search: SearchSpace | None = None
    compare: tuple[str, ...] = ()
