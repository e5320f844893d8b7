"""What is typed, as far as it must be known before jsonargparse parses it: files, and the order of what is named."""

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
    """The words of a command line. Make one by `read`.

    Attributes:
        words: What jsonargparse gets, with the path of the file that each `--config` means.
        options: In the order typed, each `--name value` and `--name=value`; `-c` is `--config`.
    """

    words: list[str]
    options: list[tuple[str, str]]

    @classmethod
    def read(cls, words: Sequence[str]) -> "Typed":
        """Find the configuration files.

        Raises:
            MissingFileError: There is no such file, and none in the package.
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
        """`fit`, `validate`, `test` or `predict`; empty where none is typed first."""
        return self.words[0] if self.words else ""

    def values(self, name: str) -> list[str]:
        """The values of an option."""
        return [value for option, value in self.options if option == name]

    @property
    def run_dir(self) -> str | None:
        """The run folder, typed or configured; None if there is neither."""
        configured = [str(config["run_dir"]) for _, config in self.configs() if config.get("run_dir")]
        return next(reversed(self.values("--run_dir") or configured), None)

    def class_of(self, part: str) -> str | None:
        """The last word of the class that the `model` or the `data` is said to be; None if none is named."""
        return next(reversed([name for _, name in _namings(self, part) if name is not None]), None)

    def texts(self) -> Iterator[str]:
        """All that the user says: the values of options, and the content of the files that they name."""
        for _, value in self.options:
            yield value
            file = Path(value)
            if file.suffix in (".yaml", ".yml", ".json") and file.is_file():
                yield file.read_text()

    def configs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The configurations typed, each with its file."""
        for value in self.values("--config"):
            yield value, config_content(value)


def config_file(value: str) -> str:
    """The file that a `--config` means: one of that path, or else the packaged one of that name.

    A URL and a configuration itself (`{trainer: {max_epochs: 1}}`), both of which jsonargparse takes too, stay.

    Raises:
        MissingFileError: There is neither.
    """
    if Path(value).is_file() or "://" in value or not isinstance(_parsed(value, value), str):
        return value
    packaged = configs.find(value)
    if packaged is None:
        raise MissingFileError(f"--config is {value}, and there is no such file{configs.suggestion(value)}")
    return str(packaged)


def config_content(value: str) -> dict[str, Any]:
    """The settings in a `--config`, empty where they are not at hand (of a URL) or no mapping (the parser says it).

    Raises:
        SettingsError: It is not YAML.
    """
    content = _parsed(Path(value).read_text() if Path(value).is_file() else value, value)
    return content if isinstance(content, dict) else {}


def _parsed(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"--config {name} is not YAML: {error}") from error


def check_overlays(typed: Typed) -> None:
    """Refuse a YAML file whose settings of the data or the model would be lost without a word.

    Settings without a class (`data: {init_args: ...}`) belong to the class named before; naming one afterwards starts
    from its own defaults.

    Raises:
        SettingsError: The class comes after the file.
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
    """In the order typed: what names a class of `part` (the last word of it), or gives settings alone (None)."""
    for option, value in typed.options:
        if option == f"--{part}" and not Path(value).is_file():
            yield f"--{part} {value}", value.rsplit(".", 1)[-1]
        elif option == "--config":
            section = config_content(value).get(part)
            if isinstance(section, dict) and "class_path" in section:
                yield value, str(section["class_path"]).rsplit(".", 1)[-1]
            elif section:
                yield value, None
