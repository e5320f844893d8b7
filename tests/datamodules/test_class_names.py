"""Names of classes as text."""

from rich.cells import cell_len

from tailmatch.datamodules.class_names import name_column


def test_a_column_of_names_is_even_in_a_terminal() -> None:
    cells = name_column("class", ["a", "모자", "x" * 40, "two\nlines"])
    assert [cell.rstrip() for cell in cells] == ["class", "a", "모자", f"{'x' * 21}...", r"two\nlines"]
    assert {cell_len(cell) for cell in cells} == {24}
