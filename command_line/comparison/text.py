"""Lay out a comparison for a terminal."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from tailmatch.command_line.comparison.table import Table, shown_pair
from tailmatch.datamodules.class_names import printable, short_name

LEAST = 10
"""The number of characters that a column of settings keeps, if the terminal is too narrow for all of them."""


def terminal_text(table: Table, width: int) -> Sequence[RenderableType]:
    """Lay out the table in a width of characters; metrics that do not fit beside the settings follow in further tables.

    Args:
        table: The comparison.
        width: The number of characters of a line.
    """
    shown: list[RenderableType] = [Text(sentence) for sentence in table.legend()]
    heads = [[printable(cell) for cell in table.head_cells(row)] for row in table.rows]
    numbers = {name: [table.number(row, name) for row in table.rows] for name in table.metrics}
    shown += list(_blocks(table.heads, heads, numbers, width))
    if table.class_names:
        shown.append(Group(Text("\nRecall of each class, the one with the most labels first"), *_classes(table, width)))
    return shown


def _classes(table: Table, width: int) -> Iterator[RenderableType]:
    """Lay out the recall of each class; a row for a class, since there may be many."""
    labels = {printable(row.label): row for row in table.rows if row.recall}
    numbers = {}
    for label, row in labels.items():
        cells = [row.recall.get(name) for name in table.class_names]
        numbers[label] = ["–" if cell is None else shown_pair(cell.mean, cell.std, share=True) for cell in cells]
    yield from _blocks(["class"], [[short_name(name)] for name in table.class_names], numbers, width)


def _blocks(
    titles: Sequence[str], heads: Sequence[Sequence[str]], numbers: dict[str, list[str]], width: int
) -> Iterator[RichTable]:
    """Yield tables that each have all heads, and as many columns of numbers as fit beside them; at least one."""
    widths = [max(map(cell_len, column)) for column in zip(titles, *heads, strict=True)]
    least = sum(min(each, LEAST) for each in widths) + 3 * len(widths) + 1
    left = list(numbers)
    while left:
        block = [left.pop(0)]
        used = least + _width(block[0], numbers)
        while left and used + _width(left[0], numbers) <= width:
            used += _width(left[0], numbers)
            block.append(left.pop(0))
        laid_out = RichTable()
        for title in titles:
            laid_out.add_column(Text(printable(title)), overflow="fold")
        for name in block:
            laid_out.add_column(Text("\n".join(_words(name))), justify="right", overflow="fold")
        for place, head in enumerate(heads):
            laid_out.add_row(*map(Text, head), *(Text(numbers[name][place]) for name in block))
        yield laid_out


def _width(name: str, numbers: dict[str, list[str]]) -> int:
    return max(map(cell_len, [*_words(name), *numbers[name]])) + 3


def _words(name: str) -> list[str]:
    """Divide the name of a metric, or the settings of a row, into the lines of a head."""
    return name.replace("_", " ").split(" ") if "," not in name else name.split(", ")


def print_table(table: Table) -> None:
    """Print a comparison; where the output is no terminal, lines are as long as the table is wide."""
    console = Console()
    width = console.width if console.is_terminal else 10_000
    for part in terminal_text(table, width):
        if not console.is_terminal:
            console = Console(width=width, soft_wrap=isinstance(part, Text))
        console.print(part)
