"""Every table of predictions says when it is read what was written, whatever the names."""

import csv
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tailmatch.callbacks.writers.prediction_tables import DELIMITERS, FIELDS, Chunk, write_table

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=10)
awkward = st.sampled_from(
    ["a,b", 'say "b"', "tab\tbed", "two\nlines", "carriage\rreturn", "both\r\n", " space ", "'", "ü"]
)
fields = st.lists(st.sampled_from([name for name in FIELDS if name != "id"]), min_size=1, unique=True)


@st.composite
def tables(draw: Callable[[Any], Any]) -> tuple[list[str], list[Chunk]]:
    """Draw class names, and predictions in chunks."""
    classes = draw(st.lists(st.one_of(names, awkward), min_size=2, max_size=4, unique=True))
    random = np.random.default_rng(draw(st.integers(0, 2**40)))
    chunks: list[Chunk] = []
    for _ in range(draw(st.integers(1, 3))):
        keys = draw(st.lists(st.one_of(names, awkward), min_size=1, max_size=5))
        probs = random.dirichlet([draw(st.sampled_from([0.01, 1.0]))] * len(classes), len(keys)).astype(np.float32)
        label = np.argsort(-probs, axis=1, kind="stable")
        confidence = np.take_along_axis(probs, label, axis=1)
        chunks.append({"key": np.array(keys, object), "label": label, "confidence": confidence, "probs": probs})
    return classes, chunks


@pytest.mark.parametrize("suffix", [*DELIMITERS, ".parquet"])
@given(table=tables(), shown=fields)
def test_what_is_read_is_what_was_written(suffix: str, table: tuple[list[str], list[Chunk]], shown: list[Any]) -> None:
    classes, chunks = table
    columns = [column for field in shown for column in FIELDS[field](classes, len(classes))]
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"table{suffix}"
        write_table(file, suffix, columns, chunks, header=True)
        if suffix == ".parquet":
            read = parquet.read_table(file)
            header, rows = (
                read.column_names,
                list(zip(*(column.to_pylist() for column in read.columns), strict=True)),
            )
        else:
            with file.open(encoding="utf-8", newline="") as lines:
                header, *rows = csv.reader(lines, delimiter=DELIMITERS[suffix])
    assert header == [column.name for column in columns]
    expected = [row for chunk in chunks for row in zip(*(c.values(chunk).tolist() for c in columns), strict=True)]
    assert len(rows) == len(expected)
    for row, cells in zip(rows, expected, strict=True):
        for cell, value in zip(row, cells, strict=True):
            if isinstance(value, float):
                assert float(cell) == (value if suffix == ".parquet" else pytest.approx(value, rel=1e-5))
            else:
                assert type(value)(cell) == value
