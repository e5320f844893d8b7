"""The page has a place for each benchmark, and the commands of the benchmarks are right."""

import pytest

from benchmarks.bench import BENCHMARKS, PAGE, replaced
from tests.docs.test_commands import parse_only
from tests.documented_commands import Command


@pytest.mark.parametrize("name", BENCHMARKS)
def test_page_has_a_place_for_each_benchmark_whose_options_are_right(name: str) -> None:
    page = replaced(PAGE.read_text(encoding="utf-8"), name, "what was measured")
    assert f"<!-- {name} -->\nwhat was measured\n<!-- end -->" in page
    for module, *words in BENCHMARKS[name]:
        parse_only(Command(module, tuple(words)))


def test_a_place_that_is_missing_is_named() -> None:
    with pytest.raises(SystemExit, match="no place <!-- step -->"):
        replaced("<!-- views -->\n<!-- end -->", "step", "")
