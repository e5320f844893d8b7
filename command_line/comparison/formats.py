"""Write a comparison as Markdown, CSV or LaTeX."""

import csv
import io
import re
from collections.abc import Sequence

from tailmatch.command_line.comparison.table import Cell, Table, shown_pair
from tailmatch.datamodules.class_names import printable

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "–": "--", "[": "{[}", "]": "{]}",
}  # fmt: skip
"""What LaTeX would read as something else; brackets after `\\\\` would be its argument."""


def markdown(table: Table) -> str:
    """Write a table with its caption as Markdown."""
    heads = [*table.heads, *table.metric_heads()]
    numbers = [[table.number(row, name) for name in table.metrics] for row in table.rows]
    rows = [[*table.head_cells(row), *cells] for row, cells in zip(table.rows, numbers, strict=True)]
    parts = [_markdown_table(heads, rows, len(table.heads))]
    if table.class_names:
        shown = [row for row in table.rows if row.recall]
        by_class = [[name, *(_recall(row.recall.get(name)) for row in shown)] for name in table.class_names]
        parts.append("Recall of each class, the one with the most labels first:")
        parts.append(_markdown_table(["class", *(row.label for row in shown)], by_class, 1))
    return "\n\n".join([*map(escape_markdown, table.legend()), *parts]) + "\n"


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    lines = [heads, ["---"] * left + ["---:"] * (len(heads) - left), *rows]
    cells = [[each if number == 1 else escape_markdown(each) for each in line] for number, line in enumerate(lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def escape_markdown(text: str) -> str:
    """Escape what Markdown or HTML in it would read as something else."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~$])|(?<!\w)_|_(?!\w)|^(?=[-+#=:])", lambda found: f"\\{found[0]}", text)


def csv_text(table: Table) -> str:
    """Write a row for each setting, with all digits: shares are in [0, 1]. A note says what was compared by force."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    numbers = [*table.metrics, *(f"recall/{name}" for name in table.class_names)]
    heads = [*table.titles, "seeds", "source"]
    writer.writerow([*heads, *(f"{name}/{kind}" for name in numbers for kind in ("mean", "std", "n")), "note"])
    note = "; ".join(["compared by force", *map(str, table.forced)]) if table.forced else ""
    for row in table.rows:
        source = "measured" if row.published is None else f"published: {table.sources[row.published - 1]}"
        cells = [row.cells.get(name) for name in table.metrics] + [row.recall.get(name) for name in table.class_names]
        writer.writerow([*row.values, row.seeds, source, *(text for cell in cells for text in _exact(cell)), note])
    return lines.getvalue()


def _exact(cell: Cell | None) -> tuple[str, str, str]:
    if cell is None:
        return "", "", ""
    return f"{cell.mean:.9g}", "" if cell.std is None else f"{cell.std:.9g}", str(cell.n or "")


def latex(table: Table) -> str:
    """Write a table with its caption as LaTeX, with the rules of the package booktabs."""
    heads = [*table.heads, *table.metric_heads()]
    numbers = [[_in_math(table.number(row, name)) for name in table.metrics] for row in table.rows]
    rows = [[*map(escape_latex, table.head_cells(row)), *cells] for row, cells in zip(table.rows, numbers, strict=True)]
    parts = _latex_table(table.legend(), heads, rows, len(table.heads))
    if table.class_names:
        shown = [row for row in table.rows if row.recall]
        recalls = {name: [_in_math(_recall(row.recall.get(name))) for row in shown] for name in table.class_names}
        by_class = [[escape_latex(name), *cells] for name, cells in recalls.items()]
        caption = ["Recall of each class in percent, the one with the most labels first.", *table.legend()[:1]]
        parts += ["", *_latex_table(caption, ["class", *(row.label for row in shown)], by_class, 1)]
    return "\n".join([r"% needs \usepackage{booktabs}", *parts]) + "\n"


def _latex_table(caption: Sequence[str], heads: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    return [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape_latex(' '.join(caption))}}}",
        rf"  \begin{{tabular}}{{{'l' * left}{'r' * (len(heads) - left)}}}",
        r"    \toprule",
        f"    {' & '.join(map(escape_latex, heads))} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(row)} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]


def escape_latex(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def _in_math(text: str) -> str:
    return f"${text.replace('±', chr(92) + 'pm')}$" if text != "–" else "--"


def _recall(cell: Cell | None) -> str:
    return "–" if cell is None else shown_pair(cell.mean, cell.std, share=True)
