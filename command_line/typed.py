"""Read what must be known of a command line before jsonargparse parses it: files, and the order of options."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tailmatch.command_line import configs
from tailmatch.datamodules.arguments import MissingFileError, SettingsError

_CONFIG = ("--config", "-c")


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
        """What `--ckpt_path` names; None if it is not typed, or null."""
        name = next(reversed(self.values("--ckpt_path")), "null")
        return None if name in ("null", "None", "") else name

    def class_of(self, part: str) -> str | None:
        """Find the last class named for `model` or `data`, without its package; None if none is named."""
        return next(reversed([name for _, name in _namings(self, part) if name is not None]), None)

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


def config_file(value: str) -> str:
    """Find the file of a `--config`: the one of that path, or else the packaged one of that name.

    A URL or inline YAML (`{trainer: {max_epochs: 1}}`), which jsonargparse accepts too, is returned unchanged.

    Raises:
        MissingFileError: Neither file exists.
    """
    if Path(value).is_file() or "://" in value or not isinstance(_parsed(value, value), str):
        return value
    packaged = configs.find(value)
    if packaged is None:
        raise MissingFileError(f"--config is {value}, and there is no such file{configs.suggestion(value)}")
    return str(packaged)


def config_content(value: str) -> dict[str, Any]:
    """Read the settings of a `--config`; empty for a URL, or for YAML that is not a mapping, which the parser refuses.

    Raises:
        SettingsError: The file is not YAML, or has no settings.
    """
    if not Path(value).is_file():
        content = _parsed(value, value)
        return content if isinstance(content, dict) else {}
    try:
        content = _parsed(Path(value).read_text(encoding="utf-8"), value)
    except UnicodeDecodeError as error:
        raise SettingsError(f"--config {value} is not text in UTF-8: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"--config {value} has no settings in it; it must be YAML, `name: value`")
    return content


def _parsed(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"--config {name} is not YAML: {error}") from error


def check_overlays(typed: Typed) -> None:
    """Refuse a YAML file whose settings of the data or the model would be lost silently.

    Settings without a class (`data: {init_args: ...}`) belong to the class named before them. A class named after them
    starts from its own defaults.

    Raises:
        SettingsError: A class is named after the file with settings for it.
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
        elif option == "--config":
            section = config_content(value).get(part)
            if isinstance(section, dict) and "class_path" in section:
                yield value, str(section["class_path"]).rsplit(".", 1)[-1]
            elif section:
                yield value, None
