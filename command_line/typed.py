"""Read what must be known of a command line before jsonargparse parses it: files, and the order of options."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailmatch.command_line import configs
from tailmatch.command_line.yaml_text import parse_yaml, read_yaml
from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.lightning_modules.checkpoints.remote_files import is_url, local_file

_CONFIG = ("--config", "-c")

OPTIONS = (
    "help",
    "config",
    "print_config",
    "seed_everything",
    "trainer",
    "model",
    "data",
    "checkpoint",
    "run_dir",
    "overwrite",
    "trust_checkpoint",
    "ckpt_path",
    "weights_only",
    "verbose",
    "output",
    "report",
    "unlabeled_images",
)
"""The first parts of the options of `fit`, `validate`, `test` and `predict`, known before Lightning is imported."""


@dataclass(frozen=True)
class Typed:
    """The words of a command line, made by `read`.

    Attributes:
        words: The words for jsonargparse, in which each `--config` has the path of its file.
        options: The name and the value of each `--name value` and `--name=value`, in the order typed; `-c` becomes
            `--config`.
    """

    words: list[str]
    options: list[tuple[str, str]]

    @classmethod
    def read(cls, words: Sequence[str]) -> "Typed":
        """Read the words of a command line, and find its configuration files.

        Raises:
            MissingFileError: A configuration is neither a file nor one of this package.
        """
        found, options = list(words), []
        for place, word in enumerate(words):
            name, equals, value = word.partition("=")
            following = "" if equals or place + 1 == len(words) else words[place + 1]
            value = value or following
            if name in _CONFIG and value:
                value = config_file(value)
                found[place + (not equals)] = f"{name}={value}" if equals else value
                name = "--config"
            if name.startswith("--"):
                options.append((name, value))
        return cls(found, options)

    @property
    def subcommand(self) -> str:
        """The subcommand: `fit`, `validate`, `test` or `predict`, or empty if none is typed first."""
        return self.words[0] if self.words else ""

    def values(self, name: str) -> list[str]:
        """List the values of an option, in the order typed."""
        return [value for option, value in self.options if option == name]

    @property
    def run_dir(self) -> str | None:
        """The run folder, typed or configured; None if there is neither."""
        configured = [str(config["run_dir"]) for _, config in self.configs() if config.get("run_dir")]
        return next(reversed(self.values("--run_dir") or configured), None)

    @property
    def checkpoint(self) -> str | None:
        """What `--ckpt_path` names, or for an evaluation the `ckpt_path` of a configuration; None if it is null.

        A fit reads none from a configuration here: one that a resume has saved would undo `--ckpt_path auto`.
        """
        evaluates = self.subcommand != "fit"
        configured = [config["ckpt_path"] for _, config in self.configs() if "ckpt_path" in config] if evaluates else []
        name = next(reversed(self.values("--ckpt_path") or configured), None)
        return None if name in ("null", "None", "", None) else str(name)

    def class_of(self, part: str) -> str | None:
        """Find the last class named for `model` or `data`, without its package; None if none is named."""
        return next(reversed([name for _, name in _namings(self, part) if name is not None]), None)

    @property
    def has_settings(self) -> bool:
        """Whether a configuration says something of the model or the data; then a checkpoint's settings do not count.

        One of the trainer alone, or of the run's folder, lies on top of those of a checkpoint.
        """
        return any({"model", "data"} & config.keys() for _, config in self.configs())

    def texts(self) -> Iterator[str]:
        """All that the user says: the values of options, and the configurations that they name; a prior is none."""
        for name, value in self.options:
            yield value
            file = Path(value)
            if (name == "--config" or file.suffix in (".yaml", ".yml")) and file.is_file():
                yield file.read_text(errors="replace")

    def configs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the file and the content of each typed configuration."""
        for value in self.values("--config"):
            yield value, config_content(value)


def misspelled_option(typed: Typed) -> str | None:
    """Return a message on an option whose first part is misspelled; any other unknown one is left to the parser."""
    for name, _ in typed.options:
        first = name.removeprefix("--").split(".")[0].removesuffix("+")
        near = [] if first in OPTIONS else difflib.get_close_matches(first, OPTIONS, n=1)
        if near:
            return f"unrecognized arguments: {name}\n  Did you mean: --{near[0]}?"
    return None


def config_file(value: str) -> str:
    """Find the file of a `--config`: the one of that path, or else the packaged one of that name.

    Inline YAML (`{trainer: {max_epochs: 1}}`), which jsonargparse accepts too, is returned unchanged. A URL is fetched.

    Raises:
        SettingsError: The URL cannot be fetched, or the value is inline YAML with an error.
        MissingFileError: Neither file exists.
    """
    if is_url(value) and not value.lstrip().startswith("{"):
        return str(local_file(value))
    if Path(value).is_dir():
        raise SettingsError(f"--config is {value}, which is a folder; it must be a YAML file")
    if Path(value).is_file() or not isinstance(parse_yaml(value, "--config"), str):
        return value
    packaged = configs.find(value)
    if packaged is None:
        raise MissingFileError(f"--config is {value}, and there is no such file{configs.suggestion(value)}")
    return str(packaged)


def config_content(value: str) -> dict[str, Any]:
    """Read the settings of a `--config`; empty for inline YAML that is not a mapping, which the parser refuses.

    Raises:
        SettingsError: The file is not YAML, or has no settings.
    """
    if not Path(value).is_file():
        content = parse_yaml(value, "--config")
        return content if isinstance(content, dict) else {}
    content = read_yaml(Path(value), f"--config {value}")
    if not isinstance(content, dict):
        there = "" if content is None else f" but a {type(content).__name__}"
        raise SettingsError(f"--config {value} has no settings in it{there}; it must be YAML, `name: value`")
    if "axes" in content:
        raise SettingsError(f"--config is {value}, which is a study: run it by `tailmatch sweep {value}`")
    return content


def check_overlays(typed: Typed) -> None:
    """Refuse settings of the data or the model, in a YAML file or typed, that would be lost silently.

    Settings without a class (`data: {init_args: ...}`, `--data.seed 1`) belong to the class named before them. A class
    named after them starts from its own defaults.

    Raises:
        SettingsError: A class is named after settings for it.
    """
    for part in ("data", "model"):
        present, overlays = "", list[str]()
        for source, name in _namings(typed, part):
            if name is None:
                overlays.append(source)
            elif name != present:
                if overlays:
                    raise SettingsError(
                        f"{overlays[0]} has settings of the {part} and comes before the {part} {name} is named, so "
                        f"they would be lost: put it after {source}"
                    )
                present, overlays = name, []


def _namings(typed: Typed, part: str) -> Iterator[tuple[str, str | None]]:
    """Yield each typed source of `part`, in order, with the name of its class, or None if it has settings only."""
    for option, value in typed.options:
        if option == f"--{part}" and not Path(value).is_file():
            yield f"--{part} {value}", value.rsplit(".", 1)[-1]
        elif option == f"--{part}.class_path":
            yield f"{option} {value}", value.rsplit(".", 1)[-1]
        elif option.startswith(f"--{part}.") and option != f"--{part}.help":
            yield option, None
        elif option == "--config":
            section = config_content(value).get(part)
            if isinstance(section, dict) and "class_path" in section:
                yield value, str(section["class_path"]).rsplit(".", 1)[-1]
            elif section:
                yield value, None
