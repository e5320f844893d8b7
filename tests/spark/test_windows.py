import numpy as np
import pytest

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.spark.windows import SECOND, Windows, microseconds

MINUTE = 60 * SECOND


def at(*seconds: float) -> np.ndarray:
    return np.array([int(second * SECOND) for second in seconds], np.int64)


def no(*seconds: float) -> np.ndarray:
    return np.zeros(len(seconds), bool)


def test_durations() -> None:
    assert [microseconds("window", text) for text in ("0s", "90s", "1m", "2h", "1d")] == [
        0, 90 * SECOND, MINUTE, 120 * MINUTE, 24 * 60 * MINUTE
    ]  # fmt: skip
    for wrong in ("1", "", "1 m", "-1m", "1.5h", "1w", "m", "9999999999s"):
        with pytest.raises(SettingsError, match="window is .*30s, 1m, 1h or 1d"):
            microseconds("window", wrong)
    with pytest.raises(SettingsError, match="window is '0s'.*at least 1s"):
        microseconds("window", "0s", SECOND)


def test_images_are_counted_in_their_windows() -> None:
    windows = Windows(MINUTE, MINUTE, 3)
    windows.add(at(0, 59.9, 60, 119), np.array([0, 2, 1, -1]), no(0, 0, 0, 0))
    assert {start: window.counts.tolist() for start, window in windows.by_start.items()} == {
        0: [1, 0, 1], MINUTE: [0, 1, 0]
    }  # fmt: skip
    assert windows.by_start[MINUTE].broken == 1


def test_a_window_is_closed_when_the_watermark_passes_its_end() -> None:
    windows = Windows(MINUTE, 30 * SECOND, 2)
    windows.add(at(10, 70), np.array([0, 1]), no(0, 0))
    windows.advance(89 * SECOND, now=10**15)
    assert windows.closed() == [] and not windows.are_late(at(59)).any()
    windows.advance(90 * SECOND, now=10**15)
    assert windows.closed() == [0] and windows.are_late(at(59, 60)).tolist() == [True, False]
    windows.advance(10 * SECOND, now=10**15)  # an older image does not take it back
    assert windows.watermark == 60 * SECOND


def test_a_late_image_is_counted_as_late_alone() -> None:
    windows = Windows(MINUTE, 0, 2)
    windows.add(at(10), np.array([0]), no(0))
    windows.advance(70 * SECOND, now=10**15)
    times = at(20, 30, 65)
    windows.add(times, np.array([1, -1, 1]), windows.are_late(times))
    assert windows.by_start[0].counts.tolist() == [1, 0]
    assert (windows.by_start[0].late, windows.by_start[0].broken) == (1, 1)
    assert windows.by_start[MINUTE].counts.tolist() == [0, 1]


def test_an_image_of_the_future_closes_no_window_of_now() -> None:
    windows = Windows(MINUTE, 0, 2)
    windows.advance(10**9 * SECOND, now=30 * SECOND)
    assert windows.watermark == 30 * SECOND
