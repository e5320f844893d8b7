"""Read the file of a study, and the levels that a command line chooses of it."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tailmatch.command_line.studies.commands import read_commands
from tailmatch.command_line.studies.search_space import SearchSpace
from tailmatch.command_line.studies.study import MOST_CELLS, Part, Study, Where
from tailmatch.command_line.studies.values import (
    check_positive_integer,
    list_of,
    mapping,
    name_of,
    near,
    option_text,
)
from tailmatch.command_line.typed import config_content, config_file
from tailmatch.command_line.yaml_text import read_yaml
from tailmatch.datamodules.arguments import MissingFileError, SettingsError

SETTINGS = ("data", "model", "trainer", "checkpoint")
"""Parts of a configuration that a study may have, for all its trainings or for one level."""

OF_PART = ("configs", "options", "needs", "commands", "shown")
"""Keys of a level, or of the study, beside settings."""

OF_STUDY = ("title", "axes", "combinations", "exclude", "seeds", "threads", "search", "compare", "published")
"""Keys of a study, beside those of a level."""

OF_SWEEP = ("run_dir", "ckpt_path", "seed_everything", "overwrite")
"""Settings that `sweep` gives each training, so that a study cannot have them."""


def study_file(name: str) -> Path:
    """Find the file of a study: that of the path, or else the packaged one of that name, such as `studies/demo.yaml`.

    Raises:
        MissingFileError: There is neither.
    """
    try:
        found = Path(config_file(name))
    except MissingFileError as error:
        raise MissingFileError(str(error).replace("--config is", "the study is", 1)) from error
    if not found.is_file():
        raise MissingFileError(f"the study is {name}, and there is no such file")
    return found


def read_study(file: Path) -> Study:
    """Read a study.

    Raises:
        SettingsError: The file is not YAML, has an unknown key or an unknown level, or names a configuration that is
            not there.
    """
    content = read_yaml(file, str(file))
    if not isinstance(content, dict) or not ({"axes", "search", "seeds", *OF_PART} & content.keys()):
        raise SettingsError(f"{file} is not a study: it must have `axes`, as `tailmatch sweep --help` shows")
    where = str(file)
    _check_keys(content, (*OF_STUDY, *OF_PART, *SETTINGS), where)
    axes = {
        name_of(axis, where): _levels(levels, f"{where}, axis {axis}")
        for axis, levels in mapping(content.get("axes") or {}, f"{where}: axes").items()
    }
    combinations = []
    for number, entry in enumerate(list_of(content.get("combinations"), f"{where}: combinations"), 1):
        name = f"{where}, combination {number}"
        entry = dict(mapping(entry, name))
        chosen = _where(entry.pop("where", None), axes, name)
        combinations.append((chosen, _part(entry, name)))
    exclude = [_where(each, axes, f"{where}: exclude") for each in list_of(content.get("exclude"), f"{where}: exclude")]
    threads = content.get("threads")
    if threads is not None:
        check_positive_integer(threads, f"{where}: threads")
    common = {key: value for key, value in content.items() if key not in OF_STUDY}
    return Study(
        title=str(content.get("title") or file.stem),
        text=file.read_text(encoding="utf-8-sig"),
        common=_part(common, where),
        axes=axes,
        combinations=tuple(combinations),
        exclude=tuple(exclude),
        seeds=_seeds(content.get("seeds", 1), where),
        threads=threads,
        search=_search(content, where),
        compare=_compare(content.get("compare"), where),
    )


def levels_where(words: Iterable[str], study: Study) -> tuple[Where, tuple[int, ...] | None]:
    """Read what the command line chooses: `AXIS=LEVEL`, several levels separated by commas, and `seed=0`.

    Returns:
        The levels by axis, and the seeds; None for all.

    Raises:
        SettingsError: There is no such axis, level or seed.
    """
    chosen, seeds = dict[str, Any](), None
    for word in words:
        axis, equals, text = word.partition("=")
        if not equals:
            raise SettingsError(
                f"--where has {word}; it must be AXIS=LEVEL, such as {next(iter(study.axes), 'seed')}=..."
            )
        if axis == "seed" and axis not in study.axes:
            texts = [part.strip() for part in text.split(",")]
            known = {str(seed): seed for seed in study.seeds}
            unknown = [part for part in texts if part not in known]
            if unknown:
                raise SettingsError(f"--where: there is no seed {unknown[0]}; the study has {', '.join(known)}")
            seeds = tuple(known[part] for part in texts)
            continue
        levels = study.axes.get(axis, {})
        chosen[axis] = [text] if text in levels else [part.strip() for part in text.split(",")]
    return _where(chosen, study.axes, "--where") if chosen else {}, seeds


def _compare(content: Any, name: str) -> tuple[str, ...]:
    """Read options of `tailmatch compare`, as one would type them."""
    if content is not None and not isinstance(content, str):
        raise SettingsError(
            f"{name}: compare is {content!r:.60}; it must be options of `tailmatch compare` as one text"
        )
    try:
        return tuple(shlex.split(content or ""))
    except ValueError as error:
        raise SettingsError(f"{name}: compare is {content!r}: {error}") from error


def _search(content: Mapping[str, Any], name: str) -> SearchSpace | None:
    if "search" not in content:
        return None
    for key in ("axes", "combinations", "exclude", "needs"):
        if content.get(key):
            raise SettingsError(f"{name}: search and {key} are both there; a study compares or searches")
    return SearchSpace.read(content["search"], f"{name}: search")


def _levels(content: Any, name: str) -> dict[str, Part]:
    """Read the levels of an axis: a mapping of each, or the values of one option."""
    if isinstance(content, dict) and content.keys() == {"option", "values"}:
        option, values = content["option"], list_of(content["values"], f"{name}: values")
        if not isinstance(option, str):
            raise SettingsError(
                f"{name}: option is {option!r}; it must be one of the command line, such as model.optimizer.lr"
            )
        content = {option_text(value): {"options": {option: value}} for value in values}
    elif isinstance(content, dict) and any(isinstance(value, list) for value in content.values()):
        raise SettingsError(
            f"{name} has {', '.join(map(str, content))}; it must have option and values, or levels, which are no lists"
        )
    levels = {name_of(level, name): _part(value, f"{name}, {level}") for level, value in mapping(content, name).items()}
    if not levels:
        raise SettingsError(f"{name} has no level")
    return levels


def _part(content: Any, name: str) -> Part:
    if isinstance(content, str):
        content = {"configs": content}
    content = mapping({} if content is None else content, name)
    _check_keys(content, (*OF_PART, *SETTINGS), name)
    configs = content.get("configs") or []
    configs = tuple([configs] if isinstance(configs, str) else list_of(configs, f"{name}: configs"))
    for config in configs:
        if not isinstance(config, str):
            raise SettingsError(f"{name}: configs has {config!r}; it must have names of YAML files")
    options = {str(key).lstrip("-"): value for key, value in mapping(content.get("options") or {}, name).items()}
    _check_not_of_sweep(options, name)
    needs = {
        name_of(need, name): {
            name_of(axis, name): name_of(level, name) for axis, level in mapping(levels, name).items()
        }
        for need, levels in mapping(content.get("needs") or {}, f"{name}: needs").items()
    }
    return Part(
        name=name,
        configs=configs,
        contents=tuple(_content_of(config, name) for config in configs),
        settings={key: value for key, value in content.items() if key in SETTINGS},
        options=options,
        needs=needs,
        commands=read_commands(content.get("commands"), name),
        shown=_shown_or_not(content.get("shown"), name),
    )


def _content_of(config: str, name: str) -> dict[str, Any]:
    """Read a configuration.

    Raises:
        SettingsError: It is not there, or not a mapping.
    """
    try:
        return config_content(config_file(config))
    except SettingsError as error:
        raise type(error)(f"{name}: {str(error).replace('--config is ', 'configs has ')}") from error


def _where(content: Any, axes: Mapping[str, Mapping[str, Part]], name: str) -> Where:
    """Read a choice of levels.

    Raises:
        SettingsError: There is no such axis or level.
    """
    chosen = {}
    for axis, levels in mapping(content, f"{name}: where").items():
        if axis not in axes:
            raise SettingsError(f"{name}: there is no axis {axis}{near(axis, axes)}")
        texts = [option_text(each) for each in (levels if isinstance(levels, list) else [levels])]
        for text in texts:
            if text not in axes[axis]:
                raise SettingsError(f"{name}: the axis {axis} has no level {text}{near(text, axes[axis])}")
        chosen[str(axis)] = tuple(texts)
    return chosen


def _seeds(content: Any, name: str) -> tuple[int, ...]:
    if isinstance(content, int) and not isinstance(content, bool) and 0 < content <= MOST_CELLS:
        return tuple(range(content))
    fine = isinstance(content, list) and content and all(type(each) is int and 0 <= each < 2**32 for each in content)
    if not fine or len(set(content)) < len(content):
        raise SettingsError(f"{name}: seeds is {content!r}; it must be a number of seeds, or a list such as [0, 1, 2]")
    return tuple(content)


def _shown_or_not(content: Any, name: str) -> bool | None:
    if content is not None and not isinstance(content, bool):
        raise SettingsError(f"{name}: shown is {content!r}; it must be true or false")
    return content


def _check_keys(content: Mapping[Any, Any], known: tuple[str, ...], name: str) -> None:
    _check_not_of_sweep(content, name)
    for key in content:
        if key not in known:
            raise SettingsError(f"{name}: unknown key {key}{near(key, known)}")


def _check_not_of_sweep(content: Mapping[Any, Any], name: str) -> None:
    for key in content:
        if str(key) in OF_SWEEP:
            advice = "seeds are listed under `seeds`" if key == "seed_everything" else "leave it out"
            raise SettingsError(f"{name}: {key} is given by sweep to each training; {advice}")
