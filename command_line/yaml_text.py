"""Read YAML that a user wrote: an error names the file, the line and the column, and no key is there twice."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader
from yaml.reader import Reader

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.configuration import MOST_VALUES, count_values

DefaultLoader: Any = get_yaml_default_loader()  # type: ignore[no-untyped-call]


class SettingsLoader(DefaultLoader):  # type: ignore[misc]  # chosen while the program runs
    """jsonargparse's loader of plain values, which also refuses keys that are there twice, and too many values."""

    def get_single_data(self) -> Any:
        """Read the one document there is.

        Raises:
            YAMLError: The text is not YAML, or is refused.
        """
        node = self.get_single_node()
        if node is None:
            return None
        if count_values(node) > MOST_VALUES:
            problem = f"found more than {MOST_VALUES:,} values with aliases expanded, or an alias that contains itself"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        check_keys(node)
        return self.construct_document(node)


def check_keys(node: yaml.Node) -> None:
    """Refuse a key that a mapping has twice, at any depth: PyYAML would take the last value silently.

    Raises:
        ConstructorError: A key is there twice.
    """
    if isinstance(node, yaml.MappingNode):
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, value in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                first = seen[name].start_mark.line + 1
                problem = f"the key {key.value!r} appears twice, first in line {first}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if name is not None:
                seen[name] = key
            check_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            check_keys(value)


def read_yaml(path: Path, name: str) -> Any:
    """Read a file of settings.

    Args:
        path: The file.
        name: What to call it in messages.

    Raises:
        SettingsError: The file is not YAML in UTF-8.
    """
    content = path.read_bytes()
    try:
        return parse_yaml(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        kind = (
            "it is UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else f"a byte is {error.object[error.start]:#x}"
        )
        raise SettingsError(
            f"{name}, line {line}, column {column}: this is not text in UTF-8, {kind}; save it as UTF-8"
        ) from error


def parse_yaml(text: str, name: str) -> Any:
    """Convert YAML to plain values.

    Args:
        text: The YAML.
        name: What to call it in messages.

    Raises:
        SettingsError: The text is not YAML, a key is there twice, or there are too many values.
    """
    try:
        return yaml.load(text, Loader=SettingsLoader)  # noqa: S506  # a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{name}{place_of(error, text)}: {problem_of(error, text)}") from error


def place_of(error: Exception, text: str) -> str:
    """Return the line and the column of an error in YAML as `, line 1, column 2`; empty if it has none."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return f", line {mark.line + 1}, column {mark.column + 1}"
    strange = Reader.NON_PRINTABLE.search(text)
    if strange is None:
        return ""
    before = text[: strange.start()]
    return f", line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def problem_of(error: Exception, text: str) -> str:
    """Say in one clause what is wrong with YAML."""
    if isinstance(error, RecursionError):
        return "it is not YAML of settings: brackets are nested too deeply"
    mark = getattr(error, "problem_mark", None)
    if mark is not None and text.splitlines()[mark.line : mark.line + 1] and "\t" in _indent(text, mark.line):
        return "it is not YAML: a line begins with a tab; indent with spaces"
    strange = Reader.NON_PRINTABLE.search(text)
    if mark is None and strange is not None:
        return f"it is not YAML: a text cannot contain the character U+{ord(strange[0]):04X}"
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    unquoted = mark is not None and "${" in "".join(text.splitlines()[mark.line : mark.line + 1])
    hint = "; a text with ${...} in a list must be in quotes" if unquoted else ""
    return f"it is not YAML: {', '.join(part for part in parts if part) or error}{hint}"


def _indent(text: str, line: int) -> str:
    shown = text.splitlines()[line]
    return shown[: len(shown) - len(shown.lstrip())]
