"""Names of classes as text."""

from rich.cells import cell_len

from tailmatch.datamodules.class_names import name_column, printable


def test_a_column_of_names_is_even_in_a_terminal() -> None:
    cells = name_column("class", ["a", "모자", "x" * 40, "two\nlines"])
    assert [cell.rstrip() for cell in cells] == ["class", "a", "모자", f"{'x' * 21}...", r"two\nlines"]
    assert {cell_len(cell) for cell in cells} == {24}


def test_what_would_steer_or_reverse_a_terminal_is_an_escape() -> None:
    assert printable("a\x1b[1m\u202egnp.\u2066exe\ud800") == r"a\x1b[1m\u202egnp.\u2066exe\ud800"
    assert printable("모자 שלום 👩\u200d🎨") == "모자 שלום 👩\u200d🎨"
