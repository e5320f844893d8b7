"""Show what was found of the windows of a stream: lines, TensorBoard, a figure; and call a command on drift."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tensorboardX import SummaryWriter

from tailmatch.callbacks.reports.figures import TICK_LIMIT, class_axis, new_figure, plain_text, to_array
from tailmatch.datamodules.class_names import printable
from tailmatch.datamodules.output_files import whole_file
from tailmatch.lightning_modules.inference.drift import Counts, Drift, largest_changes
from tailmatch.spark.windows import SECOND, Window

COMMAND_SECONDS = 60
"""How long a command on drift may take; then it is ended. The stream waits for it."""

SHOWN = 200
"""The number of windows in the figure, the latest ones."""


def at(time: int) -> str:
    """Write a time in microseconds as in ISO 8601, in UTC."""
    return f"{np.datetime64(time // SECOND, 's')}Z"  # `datetime` ends with the year 9999, and files need not


def line_of(
    start: int, window: Window, drift: Drift, *, alarm: bool, changes: Sequence[str], closed: bool = True
) -> str:
    """Describe a window in one line."""
    beside = [f"{count:,} {what}" for count, what in ((window.late, "late"), (window.broken, "broken")) if count]
    parts = [at(start), f"{drift.images:,} images" + (f" ({', '.join(beside)})" if beside else "")]
    if not math.isnan(drift.distance):
        parts.append(f"distance {drift.distance:.3f}")
    if math.isnan(drift.p):
        parts.append("too few to compare")
    else:
        parts.append(f"G {drift.g:.1f} ({drift.degrees})  p {drift.p:.2g}")
    if alarm:
        parts.append(f"DRIFT: {', '.join(changes)}")
    if not closed:
        parts.append("(open)")
    return "  ".join(parts)


def change_texts(counts: Counts, reference: Counts, names: Sequence[str]) -> list[str]:
    """Describe the largest changes, such as `cat 5.0% -> 31.2%`."""
    return [
        f"{printable(names[k])} {100 * old:.1f}% -> {100 * new:.1f}%"
        for k, old, new in largest_changes(counts, reference)
    ]


class Reporter:
    """Shows windows.

    Args:
        folder: The folder of the stream.
        names: The names of the K classes.
        reference: `int64 [K]`, the counts of the reference.
        width: The width of a window in microseconds.
        command: The words of a command to run for each window with drift. None: no command.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], reference: Counts, width: int, command: Sequence[str] | None = None
    ) -> None:
        self.folder, self.names, self.reference, self.width = folder, list(names), reference, width
        self.command = command
        self._writer: Any = None

    def window(self, start: int, window: Window, drift: Drift, alarm: bool) -> None:
        """Show a closed window: a line and scalars; and, for an alarm, run the command."""
        changes = change_texts(window.counts, self.reference, self.names) if alarm else []
        print(line_of(start, window, drift, alarm=alarm, changes=changes), flush=True)
        self._log(start, window, drift, alarm)
        if alarm and self.command is not None:
            self._run(self.command, self._facts(start, window, drift))

    def open_window(self, start: int, window: Window, drift: Drift) -> None:
        """Show a window that is not closed: a line."""
        print(line_of(start, window, drift, alarm=False, changes=(), closed=False), flush=True)

    def late_images(self, number: int, starts: Sequence[int]) -> None:
        """Say that images came after their windows were closed: a line."""
        windows = (
            f"of the window {at(starts[0])}" if len(starts) == 1 else f"of {len(starts):,} windows from {at(starts[0])}"
        )
        print(f"{number:,} late images {windows}: labeled, and not counted there", flush=True)

    def images_ahead(self, number: int, newest: int) -> None:
        """Warn of images with times so far in the future that the stream reads no other image: a line."""
        print(
            f"{number:,} images have times in the future, up to {at(newest)}, and an image that is older than the "
            "newest one by --remember is not read: correct the times of these files, and begin another output",
            file=sys.stderr,
            flush=True,
        )

    def figure(
        self, starts: Sequence[int], drifts: Sequence[Drift], alarms: Sequence[bool], last: int, counts: Counts
    ) -> None:
        """Draw the closed windows, and the last one that has images beside the reference.

        The figure is `drift.png` and an image in TensorBoard.
        """
        shares = {"reference": self.reference, at(last): counts}
        drawn = drift_figure(starts[-SHOWN:], drifts[-SHOWN:], alarms[-SHOWN:], shares, self.names)
        with whole_file(self.folder / "drift.png", hidden=True) as partial, plain_text(drawn):
            drawn.savefig(partial, format="png", dpi=120)
        self._tensorboard().add_image(
            "stream/drift", to_array(drawn), starts[-1] // SECOND, starts[-1] / SECOND, dataformats="HWC"
        )
        self._writer.flush()

    def close(self) -> None:
        """Write what is left to TensorBoard."""
        if self._writer is not None:
            self._writer.close()

    def _tensorboard(self) -> Any:
        if self._writer is None:
            self._writer = SummaryWriter(str(self.folder / "tensorboard"), write_to_disk=True)
        return self._writer

    def _log(self, start: int, window: Window, drift: Drift, alarm: bool) -> None:
        """Log scalars, with the beginning of the window in seconds as their step, and its end as their time."""
        scalars: dict[str, float] = {
            "images": drift.images,
            "late": window.late,
            "broken": window.broken,
            "alarm": int(alarm),
        }
        known = {"distance": drift.distance, "G": drift.g, "p": drift.p}
        scalars |= {name: value for name, value in known.items() if not math.isnan(drift.p)}
        if len(self.names) <= TICK_LIMIT and drift.images:
            scalars |= {
                f"share/{printable(name)}": float(count) / drift.images
                for name, count in zip(self.names, window.counts, strict=True)
            }
        for name, value in scalars.items():
            self._tensorboard().add_scalar(f"stream/{name}", value, start // SECOND, (start + self.width) / SECOND)

    def _facts(self, start: int, window: Window, drift: Drift) -> dict[str, Any]:
        before = self.reference.tolist()
        classes = [
            {"name": name, "count": count, "reference": known}
            for name, count, known in zip(self.names, window.counts.tolist(), before, strict=True)
        ]
        numbers = {name: getattr(drift, name) for name in ("images", "distance", "g", "degrees", "p")}
        beside = {"late": window.late, "broken": window.broken}
        return {
            "start": at(start), "end": at(start + self.width), **numbers, **beside, "classes": classes,
            "output": str(self.folder),
        }  # fmt: skip

    def _run(self, words: Sequence[str], facts: dict[str, Any]) -> None:
        """Run the command with the window as JSON on its standard input; a failure is a line, and ends nothing."""
        try:
            done = subprocess.run(words, input=json.dumps(facts), text=True, timeout=COMMAND_SECONDS, check=False)
            failure = f"exit code {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"it was ended after {COMMAND_SECONDS} seconds"
        except OSError as error:
            failure = str(error)
        if failure:
            print(f"on_drift failed for {facts['start']}: {failure}", file=sys.stderr, flush=True)


def drift_figure(
    starts: Sequence[int],
    drifts: Sequence[Drift],
    alarms: Sequence[bool],
    shares: dict[str, Counts],
    names: Sequence[str],
) -> Figure:
    """Draw the distance of each window, with alarms in red, above the shares of classes in the last one.

    Args:
        starts: When the windows begin, in microseconds.
        drifts: What was found of them.
        alarms: Which are alarms.
        shares: Counts of classes `[K]`, by what they are of.
        names: The names of the K classes.
    """
    figure, [above, below] = new_figure(max(7, min(14, 0.4 * len(names))), 6.5, rows=2)
    times = np.array([datetime.fromtimestamp(start / SECOND, timezone.utc) for start in starts], object)
    distances = np.array([drift.distance for drift in drifts])
    red, few = np.array(alarms, bool), np.isnan([drift.p for drift in drifts])
    above.plot(times, distances, color="lightgray", linewidth=1, zorder=1)
    for chosen, color, label in (
        (~red & ~few, "tab:blue", "no drift"), (red, "tab:red", "drift"), (few, "lightgray", "too few images")
    ):  # fmt: skip
        if chosen.any():
            above.scatter(times[chosen], distances[chosen], color=color, s=16, zorder=2, label=label)
    above.set_ylim(0, 1.02 * max(0.2, float(np.nanmax(distances, initial=0.0))))
    above.set_ylabel("distance from reference")
    above.set_xlabel("window (UTC)")
    above.tick_params(axis="x", labelrotation=20)
    above.grid(alpha=0.3)
    above.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    places = np.arange(len(names))
    for (label, counts), marker in zip(shares.items(), "os", strict=True):
        total = int(counts.sum())
        below.plot(
            places, counts / max(total, 1), marker=marker, markersize=4, linewidth=1, label=f"{label} ({total:,})"
        )
    below.set_ylabel("share of predictions")
    below.set_ylim(bottom=0)
    below.grid(axis="y", alpha=0.3)
    below.legend()
    class_axis(below, names)
    return figure
