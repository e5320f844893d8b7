"""What is said of settings that have changed since a cell was run."""

from tailmatch.command_line.studies.record import changes


def test_changes_name_three_settings_with_both_values() -> None:
    before = {"a": "1", "b.c": "x", "d": "", "e": "4", "same": "7"}
    now = {"a": "2", "b.c": "x" * 100, "d": "5", "f": "6", "same": "7"}
    shown = f"a was 1 and is 2; b.c was x and is {'x' * 60}; d was not set and is 5; ..."
    assert changes(before, now) == f" ({shown})"
    assert changes(before, before) == changes({}, now) == ""  # written before settings were
