"""What is refused before a sweep runs anything: options, tables and folders that do not fit the study."""

import difflib
import shlex
from collections.abc import Sequence, Set
from pathlib import Path

from tailmatch.command_line import compare
from tailmatch.command_line.comparison.published import published_numbers
from tailmatch.command_line.studies.reading import OF_SWEEP
from tailmatch.command_line.studies.record import FILE
from tailmatch.command_line.studies.study import Study
from tailmatch.command_line.typed import OPTIONS, Typed
from tailmatch.command_line.yaml_text import parse_yaml
from tailmatch.datamodules.arguments import SettingsError


def check_extra(extra: Sequence[str]) -> None:
    """Check the options that follow, before anything is run.

    Raises:
        SettingsError: One is misspelled, or is one that `sweep` gives.
    """
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


def check_classes(extra: Sequence[str], study: Study) -> None:
    """Refuse another class of the data or the model than the settings of a study are for, which would be lost.

    Raises:
        SettingsError: An option names a class, and the study has settings for one.
    """
    axes = [part for levels in study.axes.values() for part in levels.values()]
    parts = [study.common, *axes, *(part for _, part in study.combinations)]
    settings = [each for part in parts for each in (*part.contents, part.settings)]
    for option, value in Typed.read(["fit", *extra]).options:
        name = option.removeprefix("--").removesuffix(".class_path")
        if name in ("data", "model") and any(name in each for each in settings):
            raise SettingsError(
                f"{option} {value} would leave out the {name} settings of the study: copy its file, and change it"
            )


def check_compare(words: Sequence[str], name: str) -> None:
    """Check the options for the table of a study, before anything is run.

    Raises:
        SettingsError: `compare` does not know one, or it names files.
    """
    try:
        asked = compare.parser().parse_args(["runs", *words])
    except SystemExit as error:
        raise SettingsError(f"{name}: compare is {shlex.join(words)!r}; see `tailmatch compare --help`") from error
    if asked.output or len(asked.runs) > 1:
        raise SettingsError(f"{name}: compare is {shlex.join(words)!r}; it cannot name runs or files")


def check_published(study: Study, file: Path) -> None:
    """Check the published numbers of a study, before anything is run.

    Raises:
        SettingsError: They have another form than `compare` reads, or name an axis that the study does not have.
    """
    for number in published_numbers(file, parse_yaml(study.text, str(file))):
        unknown = [axis for axis in number.levels if axis not in study.axes]
        if unknown and study.axes:
            raise SettingsError(
                f"a published row of {number.source} in {file} names the axis {unknown[0]}; the study has "
                f"{', '.join(study.axes)}"
            )


def check_title(study: Study, out: Path) -> None:
    """Check that a folder does not hold another study.

    Raises:
        SettingsError: The copy of the study in the folder has another title.
    """
    copy = out / "study.yaml"
    content = parse_yaml(copy.read_text(encoding="utf-8"), str(copy)) if copy.is_file() else None
    title = content.get("title") if isinstance(content, dict) else None
    if title is not None and title != study.title:
        raise SettingsError(
            f"{out} holds the study {title!r}, and this one is {study.title!r}: choose another --out, or remove "
            f"{copy} if it is the same study under a new title"
        )


def say_former(out: Path, names: Set[str]) -> None:
    """Name the runs in a folder that are no cells of the study any more, but rows of its table."""
    former = sorted(path.parent.name for path in out.glob(f"*/{FILE}") if path.parent.name not in names)
    if former:
        shown = ", ".join(former[:10]) + (f" and {len(former) - 10} more" if len(former) > 10 else "")
        print(f"{out} also holds runs that the study no longer has, and shows them: {shown}", flush=True)
