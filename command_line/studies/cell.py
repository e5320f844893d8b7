"""One training of a study, with its evaluation, and its command lines."""

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tailmatch.command_line.studies.study import Part
from tailmatch.command_line.studies.values import option_text
from tailmatch.command_line.typed import config_content, config_file
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import whole_file

WITH_SETTINGS = ("fit", "validate", "test", "predict")
"""Commands that take settings, and the folder of the run."""

OUTPUTS = ("--output", "--save_prices")
"""Options of commands that name what they write; they refuse an existing file unless it may be overwritten."""

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Cell:
    """One training of a study, with its evaluation.

    Attributes:
        name: The name of its folder.
        levels: The level of the cell on each axis.
        seed: The seed.
        parts: What the study, the levels and the combinations add, in the order of the command line.
        needs: Names of placeholders, and the names of the cells that must be done first, whose folders they stand for.
        commands: The commands that are run, one after the other.
        shown: Whether its results are a row of the table.
        extra: Words that are typed after all settings.
        digest: A hash of all that it depends on; another one means another training.
    """

    name: str
    levels: Mapping[str, str]
    seed: int
    parts: tuple[Part, ...]
    needs: Mapping[str, str]
    commands: tuple[str, ...]
    shown: bool
    extra: tuple[str, ...]
    digest: str = ""

    def __str__(self) -> str:
        return ", ".join([*self.levels.values(), f"seed {self.seed}"])

    def words(self, command: str, out: Path, settings: Path | None = None) -> list[str]:
        """Make the words of a command of this cell, as one would type them after `tailmatch`.

        Args:
            command: One of `commands`.
            out: The folder of the study.
            settings: The folder of the files that `write_settings` writes.

        Raises:
            SettingsError: A placeholder stands for nothing, or a word cannot be typed.
        """
        folders = self._values(out)
        words = [filled(word, folders, command) for word in shlex.split(command)]
        if self._writes_into_itself(shlex.split(command)) and not any(word.startswith("--overwrite") for word in words):
            words.append("--overwrite=true")
        if words[0] not in WITH_SETTINGS:
            return words
        if command == next(each for each in self.commands if each.split()[0] in WITH_SETTINGS):
            words += self._settings(settings or self._own(out), folders)
        words.append(f"--run_dir={out / self.name}")
        wrong = next((word for word in words if "\0" in word), None)
        if wrong is not None:
            raise SettingsError(f"{self.parts[0].name}: {wrong!r} has a null character, which no command line can have")
        return words

    def write_settings(self, out: Path, settings: Path | None = None) -> None:
        """Write the files that the command of `words` names; the arguments are the same."""
        for number, part in enumerate(self.parts, 1):
            if part.settings:
                content = filled_in(part.settings, self._values(out), part.name)
                with whole_file((settings or self._own(out)) / f"{number}.yaml") as partial:
                    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
                    partial.write_text(f"# {part.name}\n{text}", encoding="utf-8")

    @staticmethod
    def _writes_into_itself(words: Sequence[str]) -> bool:
        """Tell whether all files that a command writes are in the cell's folder, where only an earlier attempt was."""
        parts = [word.partition("=") for word in words]
        written = [value for name, equals, value in parts if equals and name in OUTPUTS]
        written += [word for name, word in itertools.pairwise(words) if name in OUTPUTS]
        written += [word for word in words[1:] if words[0] == "export" and word.endswith((".onnx", ".pt2"))]
        return bool(written) and all(word.startswith("${run}/") and ".." not in Path(word).parts for word in written)

    def changed_config(self) -> str | None:
        """Find a configuration whose file has changed since the study was read; None if there is none."""
        for part in self.parts:
            for config, content in zip(part.configs, part.contents, strict=True):
                if config_content(config_file(config)) != content:
                    return config
        return None

    def _own(self, out: Path) -> Path:
        return out / self.name / "settings"

    def _values(self, out: Path) -> dict[str, str]:
        """Map each placeholder to what it stands for."""
        folders = {name: str(out / cell) for name, cell in self.needs.items()}
        return folders | {"run": str(out / self.name), "seed": str(self.seed)}

    def _settings(self, settings: Path, folders: Mapping[str, str]) -> list[str]:
        """Make the options that give a command its settings; those of the study are in files."""
        words = []
        for number, part in enumerate(self.parts, 1):
            words += [f"--config={config}" for config in part.configs]
            if part.settings:
                words.append(f"--config={settings / f'{number}.yaml'}")
        for part in self.parts:
            words += [
                f"--{name}={filled(option_text(value), folders, part.name)}" for name, value in part.options.items()
            ]
        words += [*self.extra, f"--seed_everything={self.seed}"]
        return [*words, "--ckpt_path=auto"] if self.commands[0].split()[0] == "fit" else words


def filled(text: str, values: Mapping[str, str], name: str) -> str:
    """Replace `${name}` in a text.

    Raises:
        SettingsError: There is no value of that name.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise SettingsError(
                f"{name}: {match[0]} stands for nothing; there are " + ", ".join(f"${{{known}}}" for known in values)
            )
        return values[match[1]]

    return _PLACEHOLDER.sub(value, text)


def filled_in(value: Any, values: Mapping[str, str], name: str) -> Any:
    """Replace `${name}` in all texts of some settings; see `filled`."""
    if isinstance(value, dict):
        return {key: filled_in(inner, values, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled_in(inner, values, name) for inner in value]
    return filled(value, values, name) if isinstance(value, str) else value
