"""What runs in Spark's Python workers. It imports neither Lightning nor pyspark, which a worker has already."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tailmatch.lightning_modules.inference.arrow_labels import Wanted, label_batches, loaded_once


@dataclass(frozen=True)
class LabelTask:
    """The function for `mapInArrow` that labels images; see `arrow_labels.py` for its columns.

    Attributes:
        program: A broadcast variable with the content of a `.pt2` file.
        digest: What tells this program from others.
        wanted: The columns to give.
    """

    program: Any
    digest: str
    wanted: Wanted

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Label the batches of a task, with the model of this process."""
        return label_batches(batches, loaded_once(self.digest, lambda: self.program.value), self.wanted)
