"""Pseudo-labels as a DataFrame: opened with their facts, and checked in the tasks as those of files are."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.pseudo_labels.checks import check_origin, check_pseudo_labels
from tailmatch.datamodules.pseudo_labels.files import arrays_and_origin, facts_in_file, file_of, refused
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parquet import ERROR, SIDECAR, arrays_of, warn_of_errors
from tailmatch.datamodules.pseudo_labels.parts import PseudoLabelParts
from tailmatch.spark.parts import literal

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TYPES = {"size": "long", "digest": "binary", "label": "long", "confidence": "float", "probs": "array<float>"}
"""Spark's types of the columns besides `key`, which is text in format 2 and a number in format 1."""

ROW = ("_file", "_row")
"""Columns that say where a row is: its Parquet file, and its number there."""

Batches = Iterator[Any]
"""Record batches of Arrow."""


@dataclass(frozen=True)
class Source:
    """What a task must know of pseudo-labels to read rows of them.

    Attributes:
        path: The folder or file, for messages.
        origin: The classes and the checkpoint.
        names: The columns of a pseudo-label file, in their order.
    """

    path: str
    origin: Origin
    names: list[str]

    def chunks(self, batches: Batches) -> Iterator[PseudoLabelFile]:
        """Read rows in a task, in chunks that are checked like whole files.

        Raises:
            SettingsError: Rows mean nothing (see `check_pseudo_labels`).
        """
        import pyarrow

        for batch in batches:
            if len(batch):
                with refused(Path(self.path)):
                    content = file_of(arrays_of(pyarrow.Table.from_batches([batch]), self.names), self.origin)
                    check_pseudo_labels(content)
                yield content

    def schema(self) -> str:
        """Return the columns in Spark's words."""
        key = "string" if self.origin.fingerprint is None else "long"
        return ", ".join(f"{name} {TYPES.get(name, key)}" for name in self.names)


@dataclass(frozen=True)
class Labels:
    """Pseudo-labels whose rows stay where they are.

    Attributes:
        source: What tasks must know.
        frame: The rows that have a label.
        every: All rows, also those that have an `error` instead of a label.
    """

    source: Source
    frame: "DataFrame"
    every: "DataFrame"

    @classmethod
    def open(cls, session: "SparkSession", path: str | Path) -> "Labels":
        """Open a folder of Parquet files, or one file; only the facts and a schema are read.

        Raises:
            MissingFileError: There is nothing at this path.
            SettingsError: It is no pseudo-label file and no folder of some.
        """
        remote = "://" in str(path)
        place = str(path) if remote else str(Path(path).resolve())
        facts = _sidecar(session, place)
        if facts is None and remote:
            raise MissingFileError(f"{path} has no {SIDECAR}, which says its classes: `tailmatch label` writes one")
        if facts is None:
            facts = facts_in_file(PseudoLabelParts.open(Path(path)).origin)
        with one_message(f"read {path} as Parquet"):
            every = session.read.parquet(literal(place))
        every = every.select(
            "*", every["_metadata.file_path"].alias(ROW[0]), every["_metadata.row_index"].alias(ROW[1])
        )
        with refused(Path(path)):
            names, origin = arrays_and_origin(facts, every.columns)
            check_origin(origin)
        frame = every.where(every[ERROR].isNull()) if ERROR in every.columns else every
        return cls(Source(str(path), origin, names), frame.select(*names, *ROW), every)

    @cached_property
    def rows(self) -> int:
        """The number of rows that have a label; the first use says how many others are left out.

        Raises:
            SettingsError: There are none.
        """
        with one_message(f"read {self.source.path} as Parquet"):
            every, count = int(self.every.count()), int(self.frame.count())
        warn_of_errors(Path(self.source.path), every - count, every)
        if not count:
            raise SettingsError(f"{self.source.path} is not a pseudo-label file: it has no rows with a label")
        return count


def check_labels(path: str | Path) -> None:
    """Refuse, before Spark starts, what can be no pseudo-labels for it.

    Raises:
        MissingFileError: There is nothing at this path of this machine.
        SettingsError: It is an `.npz` file.
    """
    if "://" in str(path):
        return
    if not Path(path).exists():
        raise MissingFileError(f"no pseudo-labels {path}: `tailmatch label` writes a folder of them")
    if Path(path).suffix == ".npz":
        raise SettingsError(f"{path} is an .npz file, and Spark reads Parquet: leave out --spark")


def _sidecar(session: "SparkSession", place: str) -> dict[str, Any] | None:
    """Read the facts beside the files of a folder; None if there are none."""
    jvm: Any = session.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(f"{place}/{SIDECAR}")
    files = path.getFileSystem(session.sparkContext._jsc.hadoopConfiguration())
    if not files.exists(path):
        return None
    stream = files.open(path)
    try:
        with one_message(f"read {place}/{SIDECAR}"):
            facts = json.loads(bytes(stream.readAllBytes()))
    except ValueError as error:
        raise SettingsError(f"{place}/{SIDECAR} is no JSON: {error}") from error
    finally:
        stream.close()
    if not isinstance(facts, dict):
        raise SettingsError(f"{place}/{SIDECAR} is no dictionary")
    return facts


def record_batch(content: PseudoLabelFile, names: Sequence[str]) -> Any:
    """Make a record batch of Arrow, with the types of `Source.schema`."""
    import pyarrow

    return pyarrow.record_batch([_column(pyarrow, getattr(content, name)) for name in names], names=list(names))


def _column(pyarrow: Any, array: Any) -> Any:
    if array.ndim == 1:
        return pyarrow.array(array)
    if array.dtype == np.uint8:
        return pyarrow.array([row.tobytes() for row in array], pyarrow.binary())
    ends = np.arange(len(array) + 1, dtype=np.int32) * array.shape[1]
    return pyarrow.ListArray.from_arrays(ends, pyarrow.array(array.reshape(-1)))


_SETTINGS_ERROR = re.compile(r"^(?:[\w.]*\.)?(?:SettingsError|MissingFileError): (.+)$", re.MULTILINE)


@contextmanager
def one_message(doing: str) -> Iterator[None]:
    """Turn an error of a task into one message.

    Args:
        doing: What the tasks do, for the message.

    Raises:
        SettingsError: A task raised one, or ended in another way; the message has the end of what Spark says.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        known = _SETTINGS_ERROR.search(text)
        if known:
            raise SettingsError(known[1]) from error
        raise SettingsError(f"Spark could not {doing}: {_reason(text)}") from error


def _reason(text: str) -> str:
    """Find the line that says what happened: the last one of Python's traceback, or Spark's first one."""
    lines = [line.strip().removeprefix(": ") for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("An error occurred while calling ")]  # that is py4j's own
    python = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*: ", line) and "spark" not in line[:12]]
    line = (python or lines or ["it gives no reason"])[-1 if python else 0]
    return re.sub(r"^[\w.$]+: |(?<=\.) Consider setting .*", "", line)[:500]
