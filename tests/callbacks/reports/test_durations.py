"""Lengths of time in words."""

from tailmatch.callbacks.reports.durations import duration


def test_times_are_written_as_one_says_them() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 61, 7300)] == ["0 s", "59 s", "1 min 01 s", "2 h 01 min"]
