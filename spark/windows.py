"""Count the predictions of windows of time, and tell which windows are over and which images came too late.

Times are whole microseconds since 1970 (UTC). A window of width w begins at a multiple of w. The *watermark* is the
time up to which all images are taken to be there: `late` before the newest image that was seen. A window is closed
once the watermark has passed its end. An image of a closed window is late: it has its label, and the window's counts
stay what they were when it was closed.
"""

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.inference.drift import Counts

SECOND = 1_000_000
_UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
_DURATION = re.compile(r"(\d{1,9})([smhd])")

Times = NDArray[np.int64]
Flags = NDArray[np.bool_]


def microseconds(name: str, text: str, least: int = 0) -> int:
    """Convert a duration such as 30s, 1m, 1h or 1d.

    Args:
        name: The name of the setting, for the message.
        text: The duration.
        least: The least one, in microseconds.

    Raises:
        SettingsError: It is no duration, or below the least one.
    """
    match = _DURATION.fullmatch(text)
    value = -1 if match is None else int(match[1]) * _UNITS[match[2]]
    if value < least:
        bound = f", at least {least // SECOND}s" if least else ""
        raise SettingsError(f"{name} is {text!r}; it must be a duration such as 30s, 1m, 1h or 1d{bound}")
    return value


@dataclass
class Window:
    """What was seen of a window.

    Attributes:
        counts: `int64 [K]`, the number of predictions of each class, without those of late images.
        late: The number of images that came when the window was closed.
        broken: The number of images that could not be labeled, late or not.
    """

    counts: Counts
    late: int = 0
    broken: int = 0


@dataclass
class Windows:
    """The windows of a stream.

    Args:
        width: The width of a window.
        late: How long after the end of a window its images may come.
        classes: The number K of classes.

    Attributes:
        watermark: The time up to which all images are taken to be there.
        by_start: The windows by the time at which they begin.
    """

    width: int
    late: int
    classes: int
    watermark: int = 0
    by_start: dict[int, Window] = field(default_factory=dict)

    def starts(self, times: Times) -> Times:
        """Return the beginnings of the windows of images."""
        return times - times % self.width

    def are_late(self, times: Times) -> Flags:
        """Tell which images came after their windows were closed."""
        return self.starts(times) + self.width <= self.watermark

    def add(self, times: Times, labels: NDArray[np.int64], late: Flags) -> None:
        """Count images, given their times, predicted classes (-1 for a broken image) and whether they are late."""
        of_image = self.starts(times)
        for start in np.unique(of_image).tolist():
            here = of_image == start
            window = self.by_start.setdefault(start, Window(np.zeros(self.classes, np.int64)))
            broken = here & (labels < 0)
            window.broken += int(broken.sum())
            window.late += int((here & late & ~broken).sum())
            window.counts += np.bincount(labels[here & ~late & ~broken], minlength=self.classes)

    def advance(self, newest: int, now: int) -> None:
        """Move the watermark up to `late` before the newest image; images of the future do not move it beyond now."""
        self.watermark = max(self.watermark, min(newest, now) - self.late)

    def closed(self) -> list[int]:
        """Return the beginnings of the closed windows, in order."""
        return sorted(start for start in self.by_start if start + self.width <= self.watermark)
