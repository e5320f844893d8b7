"""Imports go one way: `command_line` > `spark` > `callbacks` > `lightning_modules` > `datamodules`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["datamodules", "lightning_modules", "callbacks", "spark", "command_line", "cli"]
"""From the bottom; each may import those before it."""


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and module of every import of this package, `from tailmatch import x` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def upward(source: str, layer: str) -> list[str]:
    """Imports that a layer may not have."""
    above = tuple(f"tailmatch.{name}." for name in LAYERS[LAYERS.index(layer) + 1 :])
    return [f"line {line}: {module}" for line, module in imports(source) if f"{module}.".startswith(above)]


@pytest.mark.parametrize("layer", LAYERS[:-1])
def test_imports_go_down(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    assert len(files) > 5
    wrong = {str(file.relative_to(ROOT)): found for file in files if (found := upward(file.read_text(), layer))}
    assert wrong == {}


@pytest.mark.parametrize(
    "source",
    [
        "from tailmatch.callbacks import DARP",
        "from tailmatch import callbacks",
        "import tailmatch.command_line.parser",
        "def f():\n    from tailmatch.cli import main",
    ],
)
def test_an_import_upward_is_seen(source: str) -> None:
    assert (
        len(upward(source, "lightning_modules")) == 1 and upward("from tailmatch import __version__", "callbacks") == []
    )
