"""Rows of pseudo-labels as Parquet: their schema, and what is read of it."""

import json
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import pyarrow_for
from tailmatch.datamodules.pseudo_labels.labels import ROW_ARRAYS, Array

FACTS = b"tailmatch"
"""The entry of the schema's metadata that has the facts of a file, in JSON."""


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


def facts_of(schema: Any) -> dict[str, Any]:
    """Read the facts of a file from its schema."""
    if not schema.metadata or FACTS not in schema.metadata:
        raise SettingsError("it has no metadata `tailmatch`, which says its classes")
    facts = json.loads(schema.metadata[FACTS])
    if not isinstance(facts, dict):
        raise SettingsError("its metadata `tailmatch` is no dictionary")
    return facts


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
