"""Rows of pseudo-labels as Parquet: their schema, and what is read of it."""

import json
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import pyarrow_for
from tailmatch.datamodules.pseudo_labels.labels import ROW_ARRAYS, Array

FACTS = b"tailmatch"
"""The entry of the schema's metadata that has the facts of a file, in JSON."""


SIDECAR = "_tailmatch.json"
"""The file with the facts of all Parquet files of a folder, for programs that write no metadata of ours (Spark). Spark
and pyarrow leave out files whose names begin with `_`."""

ERROR = "error"
"""The column that says why a row has no label; null where it has one."""


def write_parquet(path: Path, chunks: Iterable[Mapping[str, Array]], facts: Mapping[str, Any]) -> None:
    """Write rows chunk by chunk, each as a row group.

    Args:
        path: The file.
        chunks: Arrays `[n, ...]` by name, the same names in every chunk; at least one chunk.
        facts: What the file says of all rows.

    Raises:
        SettingsError: There are no chunks.
    """
    pyarrow, parquet = pyarrow_for(path)
    rest = iter(chunks)
    first = next(rest, None)
    if first is None:
        raise SettingsError(f"there are no rows to write to {path}")
    schema = pyarrow.schema(_fields(pyarrow, first), metadata={FACTS: json.dumps(dict(facts))})
    with parquet.ParquetWriter(path, schema) as writer:
        for chunk in chain([first], rest):
            arrays = [_column(pyarrow, chunk[field.name], field.type) for field in schema]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def _fields(pyarrow: Any, chunk: Mapping[str, Array]) -> list[tuple[str, Any]]:
    types = {
        "key": pyarrow.int64() if chunk["key"].dtype.kind in "iu" else pyarrow.string(),
        "size": pyarrow.int64(),
        "label": pyarrow.int64(),
        "confidence": pyarrow.float32(),
    }
    if "digest" in chunk:
        types["digest"] = pyarrow.binary(chunk["digest"].shape[1])
    if "probs" in chunk:
        types["probs"] = pyarrow.list_(pyarrow.float32(), chunk["probs"].shape[1])
    return [(name, types[name]) for name in ROW_ARRAYS if name in chunk]


def _column(pyarrow: Any, array: Array, kind: Any) -> Any:
    if array.ndim == 1:
        return pyarrow.array(array, kind)
    if array.dtype == np.uint8:
        content = pyarrow.py_buffer(np.ascontiguousarray(array))
        return pyarrow.Array.from_buffers(kind, len(array), [None, content])
    return pyarrow.FixedSizeListArray.from_arrays(array.reshape(-1), array.shape[1])


def facts_of(schema: Any, path: Path) -> dict[str, Any]:
    """Read the facts of a file from its schema, or from the file `SIDECAR` beside it."""
    sidecar = path.with_name(SIDECAR)
    if schema.metadata and FACTS in schema.metadata:
        text, where = schema.metadata[FACTS], "its metadata `tailmatch`"
    elif sidecar.is_file():
        text, where = sidecar.read_bytes(), str(sidecar)
    else:
        raise SettingsError(f"it has no metadata `tailmatch`, which says its classes, and no {SIDECAR} is beside it")
    facts = json.loads(text)
    if not isinstance(facts, dict):
        raise SettingsError(f"{where} is no dictionary")
    return facts


def rows_with_errors(file: Any) -> int:
    """Count the rows of a `ParquetFile` that have an error instead of a label."""
    if ERROR not in file.schema_arrow.names:
        return 0
    column = file.read([ERROR])[ERROR]
    return len(column) - int(column.null_count)


def warn_of_errors(path: Path, errors: int, rows: int) -> None:
    """Say how many rows are left out."""
    if errors:
        rank_zero_warn(f"{errors:,} of {rows:,} rows of {path} have an error instead of a label; they are left out")


def columns_to_read(file: Any, names: Iterable[str]) -> list[str]:
    """Name the columns to read of a `ParquetFile`, so that `without_errors` can tell which rows have labels."""
    return [*names, *([ERROR] if ERROR in file.schema_arrow.names else [])]


def without_errors(table: Any) -> Any:
    """Take the rows of a table of pyarrow that have a label."""
    return table.filter(table[ERROR].is_null()) if ERROR in table.schema.names else table


def arrays_of(table: Any, names: Iterable[str]) -> dict[str, Array]:
    """Convert columns of a table of pyarrow to arrays."""
    return {name: _array(table[name].combine_chunks(), name) for name in names}


def _array(column: Any, name: str) -> Array:
    values: Array
    if name == "probs":
        values = column.flatten().to_numpy(zero_copy_only=False)
        return values.reshape(len(column), -1)
    if name == "digest":
        content = column.to_pylist()
        if len({len(digest) for digest in content}) > 1:
            raise SettingsError("digest has entries of several lengths")
        return np.frombuffer(b"".join(content), np.uint8).reshape(len(column), -1)
    values = column.to_numpy(zero_copy_only=False)
    return values
