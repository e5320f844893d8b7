"""What a stream does with each micro-batch of labels on the driver: write it, count it, announce windows."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tailmatch.callbacks.remedies.darp.solver import Prices, refine_rows
from tailmatch.lightning_modules.inference.drift import drift_of
from tailmatch.spark.stream_output import PREDICTED, DriftTable, StreamFolder, columns_of
from tailmatch.spark.stream_report import Reporter
from tailmatch.spark.windows import SECOND, Windows

FIGURE_SECONDS = 60
"""The least time between two figures, which take half a second each; an alarm is drawn at once."""


class Watch:
    """Takes micro-batches in the order of their numbers; a repeated one replaces what it left.

    Args:
        folder: The output.
        windows: Windows, empty: those of the output are read.
        drifts: The table of windows.
        reporter: What shows them.
        facts: The facts of pseudo-label files of this stream.
        prices: DARP's prices, by which labels are refined. None: they are not.
        keep_probs: Whether the files have the probabilities of all classes.
        clock: A function that returns the time in microseconds.

    Attributes:
        busy: Held while a micro-batch is taken.
        images: The number of images with a row.
        alarms: The number of alarms since the start.
    """

    def __init__(
        self,
        folder: StreamFolder,
        windows: Windows,
        drifts: DriftTable,
        reporter: Reporter,
        facts: Mapping[str, Any],
        *,
        prices: Prices | None = None,
        keep_probs: bool = False,
        clock: Callable[[], int] = lambda: int(time.time() * SECOND),
    ) -> None:
        self.folder, self.windows, self.drifts, self.reporter, self.facts = folder, windows, drifts, reporter, facts
        self.prices, self.keep_probs, self.clock = prices, keep_probs, clock
        self.busy = threading.Lock()
        self.images = self.alarms = 0
        self._drawn = -float("inf")
        self._undrawn = False
        drifts.read()
        self._count(None)
        self._announce()

    def _count(self, before: int | None) -> None:
        """Count the rows of the output anew, or those of micro-batches before one."""
        self.windows.by_start.clear()
        self.windows.watermark = self.drifts.clock
        self._done = {number for number in self.folder.batches() if before is None or number < before}
        self.images = self.folder.count(self.windows, before)

    def take(self, number: int, rows: pa.Table) -> None:
        """Write the rows of a micro-batch, count them, and announce the windows that are closed by them.

        Args:
            number: The number of the micro-batch.
            rows: A table with the column `time`, in microseconds, and those of `label_batches`.
        """
        if number in self._done:  # it was interrupted before Spark knew that it was done
            self._count(number)
        if not len(rows):
            return
        rows = rows.set_column(rows.column_names.index("time"), "time", rows["time"].cast(pa.timestamp("us", "UTC")))
        rows = self._refined(rows)
        predicted = PREDICTED if PREDICTED in rows.column_names else "label"
        times, labels, _ = columns_of(rows, predicted)
        late = self.windows.are_late(times)
        self.windows.add(times, labels, late)
        self.windows.advance(int(times.max()), self.clock())
        rows = rows.append_column("late", pa.array(late))
        self.folder.write_batch(number, rows, self.facts, self.windows.watermark)
        self._done.add(number)
        self.images += len(times)
        self._say_late(times, late)
        self._announce()

    def idle(self, until: int) -> None:
        """Close the windows that were over at a time, when no image waits to be read."""
        before = self.windows.watermark
        self.windows.watermark = max(before, until - self.windows.late)
        if any(start not in self.drifts.announced for start in self.windows.closed()):
            self.drifts.clock = self.windows.watermark
            self._announce()
        else:
            self.windows.watermark = before

    def finish(self) -> None:
        """Show the windows that are still open, and the figure."""
        for start in sorted(self.windows.by_start):
            if start not in self.drifts.announced:
                window = self.windows.by_start[start]
                self.reporter.open_window(start, window, drift_of(window.counts, self.drifts.reference))
        if self._undrawn:
            self._draw()
        self.reporter.close()

    def _announce(self) -> None:
        """Show the closed windows that were not shown, and write the table."""
        alarm = False
        for start in self.windows.closed():
            if start in self.drifts.announced:
                continue
            window = self.windows.by_start[start]
            drift = drift_of(window.counts, self.drifts.reference)
            here = self.drifts.is_alarm(drift)
            self.reporter.window(start, window, drift, here)
            self.drifts.announced[start] = drift
            self.alarms += here
            alarm, self._undrawn = alarm or here, True
        if self.windows.by_start:
            self.drifts.write(self.windows)
        if self._undrawn and (alarm or time.monotonic() - self._drawn >= FIGURE_SECONDS):
            self._draw()

    def _draw(self) -> None:
        starts = sorted(self.drifts.announced)
        drifts = [self.drifts.announced[start] for start in starts]
        last = next((start for start in reversed(starts) if self.drifts.announced[start].degrees), starts[-1])
        alarms = [self.drifts.is_alarm(drift) for drift in drifts]
        self.reporter.figure(starts, drifts, alarms, last, self.windows.by_start[last].counts)
        self._drawn, self._undrawn = time.monotonic(), False

    def _say_late(self, times: Any, late: Any) -> None:
        if late.any():
            starts = sorted(set(self.windows.starts(times[late]).tolist()))
            self.reporter.late_images(int(late.sum()), starts)

    def _refined(self, rows: pa.Table) -> pa.Table:
        """Replace the labels by refined ones, if there are prices; drop probabilities that were not asked for."""
        if self.prices is not None:
            rows = refined(rows, self.prices)
        return rows if self.keep_probs or "probs" not in rows.column_names else rows.drop(["probs"])


def refined(rows: pa.Table, prices: Prices) -> pa.Table:
    """Refine the labels of a table with `probs`, and add the network's own as the column `predicted`."""
    good = rows["error"].is_null().to_numpy()
    label, confidence = rows["label"].to_numpy().copy(), rows["confidence"].to_numpy().copy()
    lists: list[Any] = [None] * len(rows)
    if good.any():
        given = rows["probs"].combine_chunks().filter(pa.array(good)).flatten().to_numpy().reshape(int(good.sum()), -1)
        probs = refine_rows(torch.from_numpy(given.copy()), prices)
        best = probs.max(dim=1)
        label[good], confidence[good] = best.indices.numpy(), best.values.numpy()
        for place, row in zip(np.flatnonzero(good).tolist(), probs.numpy(), strict=True):
            lists[place] = row
    rows = rows.append_column(PREDICTED, rows["label"])
    for name, values in (("label", label), ("confidence", confidence), ("probs", lists)):
        field = rows.schema.field(name)
        rows = rows.set_column(rows.column_names.index(name), field, pa.array(values, field.type))
    return rows
