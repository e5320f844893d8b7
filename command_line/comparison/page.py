"""Write a comparison as one HTML file that needs nothing else: table, plots, wins over shared seeds, and runs."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailmatch.callbacks.reports.html.charts import Chart, line_chart
from tailmatch.callbacks.reports.html.templates import environment, shown
from tailmatch.callbacks.reports.metrics_rows import number
from tailmatch.command_line.comparison.paired import Paired, paired
from tailmatch.command_line.comparison.results import facts_value
from tailmatch.command_line.comparison.runs import as_float, is_number
from tailmatch.command_line.comparison.settings import NONE
from tailmatch.command_line.comparison.table import (
    Cell,
    Row,
    Table,
    cell_of,
    is_share,
    order_of,
    shown_pair,
)

MOST_LINES = 24
"""The number of lines of a chart, for which there are colors; of more rows, the first are drawn."""

MOST_PAIRED = 12
"""The number of rows that are compared with each other, pair by pair."""

FEW = 8
"""The number of rows that share one chart; of more, those that differ in the first column alone do."""

PER_CLASS = 40
"""The number of classes up to which lines of recall have a point for each class; of more, for groups of classes."""


@dataclass
class Panel:
    """Rows that are drawn together, and compared pair by pair; `title` has what they share."""

    title: str
    names: list[str]
    rows: list[Row]


def html_text(table: Table) -> str:
    """Make the page. Every text in it is escaped."""
    measured = [row for row in table.rows if row.results]
    panels = panels_of(measured, table.titles)
    colors = colors_of(panels)
    metric = table.metrics[0]
    parts = {
        "title": shown(table.title) or "Comparison",
        "legend": [shown(sentence, 5000) for sentence in table.legend()],
        "heads": [shown(head) for head in [*table.heads, *table.metric_heads()]],
        "left": len(table.heads),
        "rows": [
            {
                "published": row.published is not None,
                "heads": [shown(cell) for cell in table.head_cells(row)],
                "cells": [table.number(row, name) for name in table.metrics],
            }
            for row in table.rows
        ],
        "recall": [chart for panel in panels if (chart := recall_chart(panel, colors)) is not None],
        "curves": [chart for panel in panels if (chart := curve_chart(panel, metric, colors)) is not None],
        "metric": metric,
        "pairs": [pairs for panel in panels if (pairs := pairs_of(panel, metric)) is not None],
        "classes": _classes(table),
        "runs": [_run_facts(row) for row in measured],
    }
    return environment(Path(__file__).parent).get_template("comparison.html.j2").render(parts)


def panels_of(rows: Sequence[Row], titles: Sequence[str]) -> list[Panel]:
    """Gather rows that are drawn together: all if they are few, else those that differ in the first column alone."""
    if len(rows) <= FEW or not rows or len(rows[0].values) < 2:
        return [Panel("", [row.label for row in rows], list(rows))]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.values[1:], []).append(row)
    if max(map(len, groups.values())) < 2:
        return [Panel("", [row.label for row in rows], list(rows))]
    return [
        Panel(
            ", ".join(f"{title} {value}" for title, value in zip(titles[1:], rest, strict=True) if value != NONE),
            [row.values[0] for row in group],
            group,
        )
        for rest, group in groups.items()
    ]


def colors_of(panels: Sequence[Panel]) -> dict[str, int]:
    """Give each name one color on the whole page; none if there are more names than colors."""
    names = dict.fromkeys(shown(name) for panel in panels for name in panel.names[:MOST_LINES])
    return {name: color for color, name in enumerate(names)} if len(names) <= MOST_LINES else {}


def _title(text: str, panel: Panel) -> str:
    more = f" (the first {MOST_LINES} of {len(panel.rows)})" if len(panel.rows) > MOST_LINES else ""
    return shown(f"{panel.title}: {text}" if panel.title else text) + more


def recall_chart(panel: Panel, colors: Mapping[str, int]) -> Chart | None:
    """Draw the mean recall from the class with the most labels to the rarest; None if recalls are not known."""
    lines = {}
    axis = "classes, the one with the most labels first"
    for name, row in list(zip(panel.names, panel.rows, strict=True))[:MOST_LINES]:
        order = next((order for each in row.results if each.recall and (order := order_of(each))), None)
        if order is None:
            continue
        means = [row.recall[label].mean if label in row.recall else math.nan for label in order]
        if len(means) > PER_CLASS:
            axis = f"groups of about {len(means) // 10} classes, those with the most labels first"
        lines[shown(name)] = list(enumerate(_in_groups(means), 1))
    return line_chart(_title("recall from head to tail", panel), lines, axis, share=True, colors=colors)


def _in_groups(values: Sequence[float]) -> list[float]:
    """Give values as they are, or the means of ten groups of many."""
    if len(values) <= PER_CLASS:
        return list(values)
    ends = [round(place * len(values) / 10) for place in range(11)]
    groups = [[value for value in values[a:b] if math.isfinite(value)] for a, b in zip(ends, ends[1:], strict=False)]
    return [statistics.fmean(group) if group else math.nan for group in groups]


def curve_chart(panel: Panel, metric: str, colors: Mapping[str, int]) -> Chart | None:
    """Draw a metric of the validations over the steps, as the mean over seeds and a band of one standard deviation.

    A step is drawn if all seeds of the row were validated at it. None if no run has validations.
    """
    lines, bands = {}, {}
    for name, row in list(zip(panel.names, panel.rows, strict=True))[:MOST_LINES]:
        curve = curve_of(row, metric)
        if curve:
            lines[shown(name)] = [(step, cell.mean) for step, cell in curve]
            ends = [(step, cell.mean - (cell.std or 0), cell.mean + (cell.std or 0)) for step, cell in curve]
            bands[shown(name)] = ends if any(cell.std for _, cell in curve) else []
    title = _title(f"{metric}, validation", panel)
    return line_chart(title, lines, "step", share=is_share(metric), bands=bands, colors=colors)


def curve_of(row: Row, metric: str) -> list[tuple[float, Cell]]:
    """Give mean and standard deviation over the seeds at each step that all seeds have."""
    curves = []
    for each in row.results:
        column = metric if "/" in metric else f"val/{metric}"
        points = {int(line["step"]): number(line.get(column)) for line in each.run.curve}
        known = {step: as_float(value) for step, value in points.items() if value is not None}
        curves.append({step: value for step, value in known.items() if math.isfinite(value)})
    curves = [curve for curve in curves if curve]
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    cells = [(float(step), cell_of([curve[step] for curve in curves])) for step in shared]
    return [(step, cell) for step, cell in cells if cell is not None]


def pairs_of(panel: Panel, metric: str) -> dict[str, Any] | None:
    """Compare each row with each other one over their shared seeds; None if no two rows share a seed."""
    rows, names = panel.rows[:MOST_PAIRED], [shown(name) for name in panel.names[:MOST_PAIRED]]
    numbers = [row.by_seed(metric) for row in rows]
    smaller = metric.rpartition("/")[2].startswith("loss")
    cells = [
        [None if one is other else _pair(paired(one, other, smaller), metric) for other in numbers] for one in numbers
    ]
    if not any(cell for line in cells for cell in line):
        return None
    number_of_pairs = sum(bool(cell) for line in cells for cell in line) // 2
    left_out = len(panel.rows) - len(rows)
    return {"title": shown(panel.title), "names": names, "cells": cells, "pairs": number_of_pairs, "left_out": left_out}


def _pair(found: Paired | None, metric: str) -> dict[str, str] | None:
    if found is None:
        return None
    ties = f", {found.ties} equal" if found.ties else ""
    sign = "+" if found.mean > 0 else ""
    p = NONE if found.p is None else "< 0.001" if found.p < 0.001 else f"= {found.p:.3f}"
    mean = shown_pair(found.mean, None, is_share(metric))
    return {"wins": f"{found.wins} of {found.n}{ties}", "mean": f"{sign}{mean}", "p": p}


def _classes(table: Table) -> dict[str, Any] | None:
    """Give the recall of each class in each row; None if it was not asked for."""
    rows = [row for row in table.rows if row.recall]
    if not table.class_names:
        return None
    cells = {name: [row.recall.get(name) for row in rows] for name in table.class_names}
    return {
        "heads": [shown(row.label) for row in rows],
        "rows": [
            (shown(name), [NONE if cell is None else shown_pair(cell.mean, cell.std, True) for cell in each])
            for name, each in cells.items()
        ],
    }


def _run_facts(row: Row) -> dict[str, Any]:
    """Give where the numbers of a row are from."""
    runs = []
    for each in row.results:
        run = each.run
        speed, revision = facts_value(run, "steps_per_second"), facts_value(run, "git", "revision")
        changed = " (changed)" if facts_value(run, "git", "changed") else ""
        steps = each.step if each.step is not None else facts_value(run, "steps")
        found = {
            "folder": run.name,
            "seed": run.seed,
            "step": NONE if steps is None else str(steps),
            "speed": f"{as_float(speed):.3g}" if is_number(speed) else NONE,
            "device": facts_value(run, "device") or NONE,
            "version": facts_value(run, "versions", "tailmatch") or NONE,
            "revision": f"{str(revision)[:10]}{changed}" if revision else NONE,
        }
        runs.append({name: shown(str(value)) for name, value in found.items()})
    return {"label": shown(row.label), "runs": runs}
