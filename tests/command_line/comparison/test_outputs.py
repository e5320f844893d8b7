"""Tables and pages of names with any characters: they are text, and the table keeps to the terminal."""

import csv
import io
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from tailmatch.command_line.compare import compare
from tailmatch.command_line.comparison.across import across
from tailmatch.command_line.comparison.formats import csv_text, latex, markdown
from tailmatch.command_line.comparison.page import MOST_LINES, html_text
from tailmatch.command_line.comparison.table import Table
from tailmatch.command_line.comparison.text import terminal_text
from tailmatch.datamodules.arguments import SettingsError
from tests.callbacks.reports.html.pages import Page
from tests.command_line.made_up_runs import CLASSES, change, config, make_cell, make_run

STRANGE = (
    "<b>&\"'$_^[/x]", "모자와 가방", "</script><script>alert(1)</script>", "a|b\x1b\nc \\ 100% #1 ~{y}", "=1+1",
    "`*code*`",
)  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Methods and classes with strange names, compared by force."""
    out = tmp_path_factory.mktemp("study")
    for place, method in enumerate(STRANGE):
        for seed in range(3):
            name = out / f"{place}"
            make_cell(name, {"method": method.replace("/", "|")}, seed, 0.5 + 0.04 * place + 0.01 * seed, names=STRANGE)
    change(next(iter(sorted((out / "0").iterdir()))) / "run.json", finished=False)
    return compare(sorted(out.iterdir()), (), None, per_class=True, force=True)[0]


def names(table: Table) -> list[str]:
    return [row.values[0].replace("\x1b\n", r"\x1b\n") for row in table.rows]


def test_the_table_keeps_to_the_width_of_the_terminal(table: Table) -> None:
    console = Console(width=72, file=io.StringIO(), record=True, color_system=None)
    for part in terminal_text(table, 72):
        console.print(part)
    lines = console.export_text().splitlines()
    assert max(map(cell_len, lines)) <= 72
    text = "\n".join(lines)
    assert text.count("51.00 ± 1.00") == 4 and "모자와" in text  # a row has it three times, the last one has it once
    assert "\x1b" not in text and r"\x1b" in text


def test_markdown_has_a_cell_for_each_value(table: Table) -> None:
    text = markdown(table)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) - 1 for line in rows]
    assert widths == [8] * (2 + len(STRANGE)) + [7] * (2 + len(STRANGE))
    assert "<b>" not in text and "<script>" not in text and r"\`\*code\*\`" in text
    assert text.startswith("Compared by --force, although the runs differ: training: unfinished")


def test_one_metric_across_the_levels_of_a_column(tmp_path: Path) -> None:
    for seed, accuracy in ((0, 0.5), (1, 0.6), (2, 0.9)):
        for place, method in enumerate(("A", "B")):
            for shift, prior in enumerate(("same", "reversed")):
                if (method, prior, seed) != ("B", "reversed", 2):
                    levels = {"method": method, "prior": prior}
                    make_cell(tmp_path, levels, seed, accuracy + 0.02 * place + 0.01 * shift)
    found = compare([tmp_path], (), None, per_class=False, force=False)[0]
    turned = across(found, "prior")
    assert (turned.heads, turned.metrics) == (["method", "seeds"], ["reversed", "same"])
    assert [row.counted for row in turned.rows] == ["3", "2-3"]
    lines = markdown(turned).splitlines()
    assert lines[0] == "Balanced accuracy, by prior."
    assert lines[-2:] == ["| A | 3 | 67.67 ± 20.82 | 66.67 ± 20.82 |", "| B | 2-3 | 58.00 ± 7.07 | 68.67 ± 20.82 |"]
    with pytest.raises(SettingsError, match="--across is priors; it must be one of the columns, method, prior"):
        across(found, "priors")


def test_a_column_that_is_the_only_one_becomes_the_heads_of_one_row(tmp_path: Path) -> None:
    for place, prior in enumerate(("same", "reversed")):
        make_cell(tmp_path, {"method": "A", "prior": prior}, 0, 0.5 + 0.1 * place)
    found = compare([tmp_path], (), None, per_class=False, force=False)[0]
    assert found.titles == ["prior"]
    turned = across(found, "prior")
    assert (turned.heads, turned.metrics) == (["seeds"], ["reversed", "same"])
    assert markdown(turned).splitlines()[-1] == "| 1 | 60.00 | 50.00 |"


def test_csv_has_every_name_as_it_is(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(table), newline="")))
    assert [row["method"] for row in rows] == [row.values[0] for row in table.rows]
    assert {f"recall/{name}/mean" for name in STRANGE} <= set(rows[0])
    assert all(row["note"].startswith("compared by force; training: ") for row in rows)


def test_latex_reads_no_name_as_a_command(table: Table) -> None:
    text = latex(table)
    assert text.count(r"\begin{table}") == text.count(r"\bottomrule") == 2 and r"$51.00 \pm 1.00$" in text
    rows = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert all(len(re.findall(r"(?<!\\)&", row)) == 7 and row.endswith(r" \\") for row in rows)
    plain = re.sub(
        r"\\[$_^&%#{}]|\\text\w+\{\}|\$[\d.]+ \\pm [\d.]+\$|\{\[\}|\{\]\}", "", "".join(rows).replace(r" \\", "")
    )
    assert not set("$_^%#~{}\\") & set(plain)
    assert r"\caption{Compared by --force" in text


def test_the_page_is_text_and_needs_nothing_else(table: Table) -> None:
    content = html_text(table)
    page = Page(content)
    text = "".join(page.text)
    assert all(name in text for name in names(table)) and "<script" not in content
    assert tuple(page.sections) == ("table", "recall", "curves", "pairs", "runs")
    assert not any("Left out:" in each for each in page.sections.values())
    assert re.findall(r"https?:|url\(|@import|<link|<iframe", content) == []
    assert "Compared by --force" in page.sections["table"]
    assert content.count("<polyline") == 2 * len(STRANGE) and content.count("<polygon") == len(STRANGE)
    assert "3 of 3" in page.sections["pairs"] and "p < 0.001" not in page.sections["pairs"]  # equal differences


def test_what_the_page_lacks_is_said_and_many_rows_are_divided(tmp_path: Path) -> None:
    for place in range(MOST_LINES + 2):
        make_run(tmp_path / str(place), config(threshold=place / 100), 0.5, curve=0, class_counts=None)
    table, _ = compare([tmp_path], (), None, per_class=False, force=False)
    sections = Page(html_text(table)).sections
    assert all("Left out: no run has" in sections[name] for name in ("recall", "curves"))
    assert "without the last 14 rows" in sections["pairs"]
    for place in range(10):
        make_cell(tmp_path / "study", {"method": f"m{place}", "unlabeled": "uniform"}, 0, 0.5)
        make_cell(tmp_path / "study", {"method": f"m{place}", "unlabeled": "reversed"}, 0, 0.5)
    make_cell(tmp_path / "study", {"method": "alone", "unlabeled": "reversed"}, 0, 0.5)
    make_cell(tmp_path / "study", {"method": "z", "unlabeled": "reversed"}, 0, 0.5)
    make_cell(tmp_path / "study", {"method": "z", "unlabeled": "uniform"}, 0, 0.5)
    table, _ = compare([tmp_path / "study"], (), None, per_class=False, force=False)
    content = html_text(table)
    sections = Page(content).sections
    assert "unlabeled uniform: recall from head to tail" in sections["recall"]
    assert "unlabeled reversed: 66 pairs" in sections["pairs"]
    colors = re.findall(r'<i class="c(\d+)"></i>z</span>', content)  # in each chart, although it is not the same place
    assert len(colors) == 4 and len(set(colors)) == 1
    assert len(CLASSES) < 40 and "classes, the one with the most labels first" in sections["recall"]
