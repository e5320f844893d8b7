"""The folder of a stream: one file of labels for each micro-batch, and what was found of each window.

    labels/batch-00000017.parquet   pseudo-labels of format 2, with the columns `time`, `late` and `error`
    drift.parquet                   a row for each window: counts, distance, G, p, whether it is closed and an alarm
    drift.png, tensorboard/         the same as pictures
    stream.json                     what the stream is of: a restart with anything else is refused
    _checkpoint/                    Spark's: which images are done

A micro-batch replaces the file of its number as a whole. Spark repeats one that a kill interrupted with the same images
and the same number, so that each image has one row, whatever was killed and when. The windows are counted from these
files; `drift.parquet` adds which windows were announced, and which were closed by the clock.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import pyarrow_for, stale_partials, whole_file, write_json
from tailmatch.datamodules.pseudo_labels.parquet import FACTS
from tailmatch.lightning_modules.inference.drift import Counts, Drift, drift_of
from tailmatch.spark.windows import Windows

FORMAT = 1
"""The version of this folder's format."""

BATCH = b"tailmatch_stream"
"""The entry of a batch file's metadata that has its watermark, in JSON."""

PREDICTED = "predicted"
"""The column with the network's own label, in a stream whose labels are refined."""

_NAME = re.compile(r"batch-(\d{8,})\.parquet")


@dataclass(frozen=True)
class StreamFolder:
    """The output of a stream.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def labels(self) -> Path:
        """The folder of the labels."""
        return self.path / "labels"

    @property
    def checkpoint(self) -> Path:
        """Spark's folder."""
        return self.path / "_checkpoint"

    @property
    def drift(self) -> Path:
        """The table of windows."""
        return self.path / "drift.parquet"

    def batch(self, number: int) -> Path:
        """Return the file of a micro-batch."""
        return self.labels / f"batch-{number:08d}.parquet"

    def batches(self) -> dict[int, Path]:
        """Find the files of micro-batches, in their order."""
        found = {int(match[1]): file for file in self.labels.glob("*") if (match := _NAME.fullmatch(file.name))}
        return dict(sorted(found.items()))

    def open(self, settings: Mapping[str, Any]) -> bool:
        """Begin a stream, or continue the one that is there, and remove half-written files of one that was killed.

        Call it while nobody else writes here.

        Args:
            settings: What makes the stream another one if it is changed, as plain data by the names of options.

        Returns:
            Whether there was a stream.

        Raises:
            SettingsError: The folder is no stream's, or one of other settings, or a part of it is missing.
        """
        file = self.path / "stream.json"
        if not file.is_file():
            if self.path.is_dir() and any(entry.name != "stream.lock" for entry in self.path.iterdir()):
                raise SettingsError(f"output is {self.path}, which exists and is no output of a stream; name a new one")
            write_json(file, {"format": FORMAT, **settings})
            self.labels.mkdir(exist_ok=True)
            return False
        self._check_same(file, settings)
        if self.batches() and not self.checkpoint.is_dir():
            raise SettingsError(
                f"{self.checkpoint} is missing, which says what images of {self.labels} are done: put it back, or name "
                "another output, where all images are labeled anew"
            )
        self.labels.mkdir(exist_ok=True)
        for folder in (self.path, self.labels):
            for partial, _ in stale_partials(folder):
                partial.unlink(missing_ok=True)
        return True

    def _check_same(self, file: Path, settings: Mapping[str, Any]) -> None:
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            version = known.pop("format")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise SettingsError(f"{file} is not of a stream: {error!r}") from error
        if version != FORMAT:
            raise SettingsError(f"{file} is of format {version!r}; format {FORMAT} is read")
        for name, now in settings.items():
            if known.get(name) != now:
                raise SettingsError(
                    f"output {self.path} is of a stream with {name} {_short(known.get(name))}, and now {name} is "
                    f"{_short(now)}: name another output, or leave {name} as it was"
                )

    def write_batch(self, number: int, table: Any, facts: Mapping[str, Any], watermark: int) -> None:
        """Write or replace the file of a micro-batch.

        Args:
            number: The number of the micro-batch.
            table: The rows, a table of pyarrow.
            facts: The facts of a pseudo-label file.
            watermark: The watermark after these images, as far as it follows from images.
        """
        _, parquet = pyarrow_for(self.labels)
        metadata = {FACTS: json.dumps(dict(facts)), BATCH: json.dumps({"watermark": watermark})}
        with whole_file(self.batch(number), hidden=True) as partial:
            parquet.write_table(table.replace_schema_metadata(metadata), partial)

    def count(self, windows: Windows, before: int | None = None) -> int:
        """Add the rows of all micro-batches to windows, or of those before one; return the number of rows.

        Raises:
            SettingsError: A file is damaged.
        """
        rows = 0
        for number, file in self.batches().items():
            if before is None or number < before:
                times, labels, late, watermark = _read_batch(file)
                windows.add(times, labels, late)
                windows.watermark = max(windows.watermark, watermark)
                rows += len(times)
        return rows


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _read_batch(file: Path) -> tuple[Any, Any, Any, int]:
    pyarrow, parquet = pyarrow_for(file)
    try:
        opened = parquet.ParquetFile(file)
        predicted = PREDICTED if PREDICTED in opened.schema_arrow.names else "label"
        table = opened.read(["time", predicted, "late"])
        watermark = json.loads(opened.schema_arrow.metadata[BATCH])["watermark"]
        return *columns_of(table, predicted), int(watermark)
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{file} is damaged, or no file of a stream: {error!r}") from error


def columns_of(table: Any, predicted: str) -> tuple[Any, Any, Any]:
    """Return the times in microseconds, the predicted classes and the late flags of a table of pyarrow, as arrays."""
    pyarrow, _ = pyarrow_for(Path(predicted))
    times = table["time"].cast(pyarrow.timestamp("us", "UTC")).cast(pyarrow.int64()).to_numpy()
    late = table["late"].to_numpy() if "late" in table.column_names else np.zeros(len(times), bool)
    return times, table[predicted].to_numpy().astype(np.int64), late


@dataclass
class DriftTable:
    """What was found of each window, and its file.

    Args:
        path: The file, `drift.parquet`.
        facts: What the file says of all windows: class names, checkpoint, counts of the reference and so on.
        reference: `int64 [K]`, the counts of the reference.
        level: The p below which a closed window is an alarm.
        distance: The least total variation of an alarm.

    Attributes:
        announced: The windows that were announced, by the time at which they begin, with what was found of them.
        clock: The watermark as far as it follows from the clock.
    """

    path: Path
    facts: Mapping[str, Any]
    reference: Counts
    level: float
    distance: float
    announced: dict[int, Drift] = field(default_factory=dict)
    clock: int = 0

    def read(self) -> None:
        """Read which windows were announced; a missing file announced none.

        Raises:
            SettingsError: The file is damaged.
        """
        if not self.path.is_file():
            return
        pyarrow, parquet = pyarrow_for(self.path)
        try:
            table = parquet.read_table(self.path)
            self.clock = int(json.loads(table.schema.metadata[FACTS])["clock"])
            starts = table["window"].cast(pyarrow.int64()).to_pylist()
            for start, row in zip(starts, table.drop(["window"]).to_pylist(), strict=True):
                if row["closed"]:
                    distance, p = (math.nan if row[name] is None else row[name] for name in ("distance", "p"))
                    self.announced[start] = Drift(row["images"], distance, row["g"], row["degrees"], p)
        except (pyarrow.ArrowException, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"{self.path} is damaged; remove it, and it is made anew: {error!r}") from error

    def is_alarm(self, drift: Drift) -> bool:
        """Tell whether a closed window of this drift is an alarm."""
        return drift.is_alarm(self.level, self.distance)

    def write(self, windows: Windows) -> None:
        """Write the file: closed windows as they were announced, and open ones as far as they were seen."""
        pyarrow, parquet = pyarrow_for(self.path)
        starts = sorted(windows.by_start)
        found = [
            self.announced.get(start) or drift_of(windows.by_start[start].counts, self.reference) for start in starts
        ]
        closed = [start in self.announced for start in starts]
        columns = {
            "window": pyarrow.array(starts, pyarrow.timestamp("us", "UTC")),
            **{
                name: pyarrow.array([getattr(drift, name) for drift in found], kind, from_pandas=True)  # NaN is null
                for name, kind in _kinds(pyarrow)
            },
            "late": _whole(pyarrow, (windows.by_start[start].late for start in starts)),
            "broken": _whole(pyarrow, (windows.by_start[start].broken for start in starts)),
            "closed": pyarrow.array(closed, pyarrow.bool_()),
            "alarm": pyarrow.array(
                [over and self.is_alarm(drift) for over, drift in zip(closed, found, strict=True)], pyarrow.bool_()
            ),
            "counts": pyarrow.array(
                [windows.by_start[start].counts for start in starts], pyarrow.list_(pyarrow.int64())
            ),
        }
        facts = {**self.facts, "reference": self.reference.tolist(), "clock": self.clock}
        table = pyarrow.table(columns).replace_schema_metadata({FACTS: json.dumps(facts)})
        with whole_file(self.path, hidden=True) as partial:
            parquet.write_table(table, partial)


_OF_DRIFT = ("images", "distance", "g", "degrees", "p")


def _kinds(pyarrow: Any) -> list[tuple[str, Any]]:
    whole, real = pyarrow.int64(), pyarrow.float64()
    return list(zip(_OF_DRIFT, (whole, real, real, whole, real), strict=True))


def _whole(pyarrow: Any, numbers: Iterable[int]) -> Any:
    return pyarrow.array(list(numbers), pyarrow.int64())
