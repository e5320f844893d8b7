"""Pseudo-labels of any number, read and written a chunk of rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files.bounds import check_parquet
from tailmatch.datamodules.output_files import pyarrow_for, whole_file
from tailmatch.datamodules.pseudo_labels.checks import check_origin, check_pseudo_labels
from tailmatch.datamodules.pseudo_labels.columns import in_memory
from tailmatch.datamodules.pseudo_labels.files import (
    arrays_and_origin,
    facts_in_file,
    file_of,
    read_pseudo_labels,
    refused,
    write_pseudo_labels,
)
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parquet import (
    arrays_of,
    columns_to_read,
    facts_of,
    rows_with_errors,
    warn_of_errors,
    without_errors,
    write_parquet,
)

MOST_ROWS = 65_536
"""The largest number of rows in a chunk."""

MOST_PROBS = 1 << 22
"""The largest number of probabilities in a chunk: 16 MiB."""


@dataclass(frozen=True)
class PseudoLabelParts:
    """Pseudo-labels in a file, or in all Parquet files of a folder, in the order of their names.

    Of a Parquet file, a row group at a time is in memory; an `.npz` file is read as a whole.

    Attributes:
        files: The files.
        origin: The classes, the checkpoint and the data of all of them.
        rows: The number of rows in all files that have labels.
        has_probs: Whether there are probabilities of all classes.
        errors: The number of rows that have an error instead, and are left out.
    """

    files: tuple[Path, ...]
    origin: Origin
    rows: int
    has_probs: bool
    errors: int = 0

    @classmethod
    def open(cls, path: Path) -> "PseudoLabelParts":
        """Open a pseudo-label file (`.npz`, `.parquet`) or a folder of Parquet files.

        Raises:
            MissingFileError: The path does not exist.
            SettingsError: A file is no pseudo-label file; or the folder has none, or files of several origins.
        """
        files: tuple[Path, ...] = (path,)
        if path.is_dir():
            files = tuple(sorted(file for file in path.glob("*.parquet") if file.name[0] not in "._"))
            if not files:
                raise SettingsError(f"the folder {path} has no .parquet files, and so no pseudo-labels")
        parts = [cls._of_file(file) for file in files]
        for part in parts[1:]:
            for fact in ("origin", "has_probs"):
                if getattr(part, fact) != getattr(parts[0], fact):
                    raise SettingsError(
                        f"{part.files[0]} and {parts[0].files[0]} do not belong together: {fact} is "
                        f"{getattr(part, fact)} and {getattr(parts[0], fact)}"
                    )
        rows, errors = (sum(getattr(part, name) for part in parts) for name in ("rows", "errors"))
        warn_of_errors(path, errors, rows + errors)
        if not rows:
            raise SettingsError(f"{path} is not a pseudo-label file: it has no rows")
        return cls(files, parts[0].origin, rows, parts[0].has_probs, errors)

    @classmethod
    def _of_file(cls, path: Path) -> "PseudoLabelParts":
        if path.suffix != ".parquet":
            content = read_pseudo_labels(path)
            return cls((path,), content.origin, len(content.key), content.probs is not None)
        if not path.is_file():
            raise MissingFileError(f"no pseudo-label file {path}: `tailmatch predict` writes one")
        with refused(path):
            file = pyarrow_for(path)[1].ParquetFile(path)
            check_parquet(path, file)
            names, origin = arrays_and_origin(facts_of(file.schema_arrow, path), file.schema_arrow.names)
            check_origin(origin)
            errors = rows_with_errors(file)
        return cls((path,), origin, file.metadata.num_rows - errors, "probs" in names, errors)

    @cached_property
    def chunk_rows(self) -> int:
        """The number of rows in a chunk."""
        return max(1, min(MOST_ROWS, MOST_PROBS // len(self.origin.class_names)))

    def chunks(self) -> Iterator[PseudoLabelFile]:
        """Read all rows in order, in chunks that are checked like whole files.

        Raises:
            SettingsError: Rows mean nothing (see `check_pseudo_labels`).
        """
        for path in self.files:
            if path.suffix != ".parquet":
                content = read_pseudo_labels(path)
                for start in range(0, len(content.key), self.chunk_rows):
                    yield content.take(np.arange(start, min(start + self.chunk_rows, len(content.key))))
                continue
            with refused(path):
                yield from self._batches(path)

    def _batches(self, path: Path) -> Iterator[PseudoLabelFile]:
        pyarrow, parquet = pyarrow_for(path)
        file = parquet.ParquetFile(path)
        names, origin = arrays_and_origin(facts_of(file.schema_arrow, path), file.schema_arrow.names)
        for batch in file.iter_batches(self.chunk_rows, columns=columns_to_read(file, names)):
            table = without_errors(pyarrow.Table.from_batches([batch]))
            if len(table):
                content = file_of(arrays_of(table, names), origin)
                check_pseudo_labels(content)
                yield content


def write_chunks(path: Path, chunks: Iterator[PseudoLabelFile], origin: Origin) -> None:
    """Write a pseudo-label file from chunks of rows; one that ends in `.npz` is made in memory.

    Raises:
        SettingsError: There are no rows.
    """
    some = (chunk.arrays() for chunk in chunks if len(chunk.key))
    if path.suffix == ".parquet":
        with whole_file(path) as partial:
            write_parquet(partial, some, facts_in_file(origin))
        return
    parts = list(some)
    if not parts:
        raise SettingsError(f"there are no rows to write to {path}")
    columns = {name: in_memory(_as_npz(np.concatenate([part[name] for part in parts]))) for name in parts[0]}
    write_pseudo_labels(path, columns, origin)


def _as_npz(array: Any) -> Any:
    return array.astype(np.str_) if array.dtype == object else array
