"""Lay out one metric with the levels of a column across the page, as the tables of papers do."""

from dataclasses import replace

from tailmatch.command_line.comparison.table import Row, Table
from tailmatch.datamodules.arguments import SettingsError


def across(table: Table, title: str) -> Table:
    """Make a column of settings the heads of columns with numbers: those of the table's first metric.

    Args:
        table: The table.
        title: The head of the column.

    Raises:
        SettingsError: The table has no such column.
    """
    others = [other for other in table.titles if other != title]
    if title not in table.titles:
        raise SettingsError(f"--across is {title}; it must be one of the columns, {', '.join(table.titles)}")
    place, metric = table.titles.index(title), table.metrics[0]
    levels = list(dict.fromkeys(row.values[place] for row in table.rows))
    rows: dict[tuple[tuple[str, ...], int | None], Row] = {}
    for row in table.rows:
        values = tuple(value for each, value in zip(table.titles, row.values, strict=True) if each != title)
        found = rows.setdefault((values, row.published), Row(values, published=row.published))
        if metric in row.cells:
            found.cells[row.values[place]] = row.cells[metric]
        found.results += row.results
    for row in rows.values():
        counts = sorted({cell.n for cell in row.cells.values()})
        row.counted = (
            "" if row.published is not None else "-".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]])))
        )
    caption = [f"{metric.replace('_', ' ').capitalize()}, by {title}.", *table.caption]
    return replace(
        table,
        titles=others,
        metrics=levels,
        rows=list(rows.values()),
        caption=caption,
        metric_of=dict.fromkeys(levels, metric),
    )
