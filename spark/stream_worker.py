"""What runs in Spark's Python workers for a stream: labels, with the times of the files."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from tailmatch.spark.worker import LabelTask


@dataclass(frozen=True)
class StreamTask:
    """The function for `mapInArrow` that labels files of a folder.

    The input columns are `path`, as Spark writes it (`file:/folder/a.jpg`), and `time`, whole microseconds. The output
    columns are `time` and those of `labels`.

    Attributes:
        labels: The function that labels.
        root: The folder, of which the keys are the paths below.
    """

    labels: LabelTask
    root: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Label the batches of a task."""
        times: deque[int] = deque()
        for rows in self.labels(self._named(batches, times)):
            here = pa.array([times.popleft() for _ in range(len(rows))], pa.int64())
            yield pa.RecordBatch.from_arrays([here, *rows.columns], names=["time", *rows.schema.names])

    def _named(self, batches: Iterable[pa.RecordBatch], times: deque[int]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            times.extend(batch.column("time").to_pylist())
            paths = [local_path(path) for path in batch.column("path").to_pylist()]
            keys = [path.removeprefix(self.root.rstrip("/") + "/") for path in paths]
            yield pa.record_batch({"key": pa.array(keys, pa.string()), "path": pa.array(paths, pa.string())})


def local_path(path: str) -> str:
    """Return the path of a file that Spark names by `file:/path` or `file:///path`."""
    return "/" + path.removeprefix("file:").lstrip("/")
