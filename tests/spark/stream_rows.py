"""Rows of labels as the workers of a stream give them, and a stream's output, without Spark."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tailmatch.lightning_modules.inference.arrow_labels import Wanted, output_schema
from tailmatch.spark.stream_output import DriftTable, StreamFolder
from tailmatch.spark.stream_report import Reporter
from tailmatch.spark.watch import Watch
from tailmatch.spark.windows import SECOND, Windows

NAMES = ["cat", "dog"]
FACTS = {"class_names": NAMES, "checkpoint": "ab", "format": 2}
SETTINGS = {"input": "/in", "model": "ab", "window": "1m"}
NOW = 10**15
KEYS = itertools.count()


def rows(times: Sequence[float], labels: Sequence[int], probs: Sequence[Sequence[float]] | None = None) -> pa.Table:
    """Images at seconds, with their labels; -1 is a broken image. Each has a name of its own."""
    names = [f"{next(KEYS)}.jpg" for _ in times]
    columns: dict[str, Any] = {
        "key": names,
        "size": [100] * len(names),
        "digest": [name.encode().ljust(16) for name in names],
        "label": list(labels),
        "confidence": [0.9 if label >= 0 else 0.0 for label in labels],
        "error": [None if label >= 0 else "no image" for label in labels],
    }
    if probs is not None:
        given = iter(probs)
        columns["probs"] = [next(given) if label >= 0 else None for label in labels]
    schema = output_schema(Wanted(probs=probs is not None))
    table = pa.table({name: columns[name] for name in schema.names}, schema)
    return table.add_column(0, "time", pa.array([int(second * SECOND) for second in times], pa.int64()))


def watch(path: Path, reference: Sequence[int] = (500, 500), now: int = NOW, **options: Any) -> Watch:
    """Begin or continue a stream of windows of a minute, whose images may be a minute late."""
    folder = StreamFolder(path)
    folder.open(SETTINGS)
    counts = np.array(reference, np.int64)
    return Watch(
        folder,
        Windows(60 * SECOND, 60 * SECOND, len(NAMES)),
        DriftTable(folder.drift, FACTS, counts, 0.001, 0.0),
        Reporter(path, NAMES, counts, 60 * SECOND, options.pop("command", None)),
        FACTS,
        clock=lambda: now,
        **options,
    )
