"""Select the most confident pseudo-labels of each class on Spark's executors: `tailmatch select --spark true`."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels.checks import ROUNDING
from tailmatch.datamodules.pseudo_labels.files import check_output
from tailmatch.datamodules.pseudo_labels.labels import Array, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parts import MOST_PROBS, MOST_ROWS, write_chunks
from tailmatch.datamodules.pseudo_labels.selection import Selection, check_rule, nothing_above
from tailmatch.spark.labels import ROW, Batches, Labels, Source, check_labels, one_message
from tailmatch.spark.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


def select_on_spark(
    labels: str | Path,
    output: str | Path,
    *,
    per_class: int | None = None,
    share: float | None = None,
    threshold: float | None = None,
    overwrite: bool = False,
    session: "SparkSession | None" = None,
) -> Selection:
    """Select the rows that `select_labels` does, with all rows in Spark's executors; the selected ones come here.

    Args:
        labels: A folder of Parquet files of pseudo-labels, or one file; a path or a URL of the cluster's files.
        output: The file to write on this machine, `.npz` or `.parquet`, in the order of the keys.
        per_class: The number of rows of each class; classes with fewer keep all.
        share: The share of the rows of each class, in (0, 1], rounded up.
        threshold: The least confidence.
        overwrite: Whether an existing output is replaced.
        session: The Spark session. None: the present one, or a new one (see `spark_session`).

    Raises:
        SettingsError: See `select_labels`.
    """
    check_rule(per_class, share, threshold)
    check_output(Path(output), overwrite)
    check_labels(labels)
    opened = Labels.open(session or spark_session("tailmatch select"), labels)
    source = opened.source
    with one_message("select pseudo-labels"), ExitStack() as held:
        ranked = opened.frame.select(*(name for name in source.names if name != "probs"), *ROW)
        rows, largest = opened.rows, _largest(ranked, source)
        if "digest" in source.names:
            ranked = _first(ranked, "digest").persist()
            held.callback(ranked.unpersist)
        counts, above = _counts(ranked, len(source.origin.class_names), threshold)
        most = above
        if threshold is None:
            most = np.ceil(share * counts).astype(np.int64) if share is not None else np.minimum(counts, per_class or 0)
        if not most.any():
            raise nothing_above(threshold, labels, largest)
        chosen = _most_confident(ranked, most)
        if "probs" in source.names:
            chosen = opened.frame.join(chosen.select(*ROW), list(ROW), "left_semi")
        selected, least = np.zeros_like(counts), np.full(len(counts), np.inf, np.float32)
        chunks = _noted(_brought(chosen, source, int(most.sum())), selected, least)
        write_chunks(Path(output), chunks, source.origin)
    least[selected == 0] = 0
    return Selection(source.origin.class_names, counts, selected, least, rows - int(counts.sum()))


def _largest(rows: "DataFrame", source: Source) -> float:
    """Find the largest confidence.

    Raises:
        SettingsError: Some rows mean nothing.
    """
    from pyspark.sql import functions as F

    good = F.col("label").between(0, len(source.origin.class_names) - 1)
    good &= F.col("confidence").between(0, 1 + ROUNDING) & F.col("key").isNotNull()
    if "digest" in source.names:
        good &= F.col("digest").isNotNull()
    bad = F.sum(F.when(good, 0).otherwise(1))
    (found,) = rows.agg(bad.alias("bad"), F.max("confidence").alias("largest")).collect()
    if found["bad"]:
        raise SettingsError(
            f"{source.path} is not a pseudo-label file: {found['bad']:,} rows have no key, no "
            f"digest, a label that is not 0 to {len(source.origin.class_names) - 1}, or a confidence outside [0, 1]"
        )
    return float(found["largest"])


def _order() -> list["Column"]:
    """Return the order of rows from the most confident; it has no ties."""
    from pyspark.sql import functions as F

    return [F.col("confidence").desc(), F.col("key"), *(F.col(name) for name in ROW)]


def _first(rows: "DataFrame", column: str) -> "DataFrame":
    """Keep the first row of each value of a column."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    rank = F.row_number().over(Window.partitionBy(column).orderBy(*_order()))
    return rows.withColumn("_rank", rank).where("_rank = 1").drop("_rank")


def _counts(rows: "DataFrame", classes: int, threshold: float | None) -> tuple[Array, Array]:
    """Count the rows of each class, and those that reach the threshold, `int64 [K]`."""
    from pyspark.sql import functions as F

    reached = F.sum((F.col("confidence") >= F.lit(threshold or 0.0).cast("float")).cast("long"))
    counts = np.zeros((2, classes), np.int64)
    for row in rows.groupBy("label").agg(F.count(F.lit(1)).alias("all"), reached.alias("reached")).collect():
        counts[:, row["label"]] = row["all"], row["reached"]
    return counts[0], counts[1]


def _most_confident(rows: "DataFrame", most: Array) -> "DataFrame":
    """Keep the most confident rows of each class, as many as `most` `int64 [K]` says."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    rank = F.row_number().over(Window.partitionBy("label").orderBy(*_order()))
    ranked = rows.withColumn("_rank", rank).where(F.col("_rank") <= int(most.max()))  # before the shuffle, too
    limit = F.element_at(F.lit(most.tolist()), F.col("label").cast("int") + 1)
    return ranked.where(F.col("_rank") <= limit).drop("_rank")


# From the executors


def _brought(rows: "DataFrame", source: Source, count: int) -> Iterator[PseudoLabelFile]:
    """Bring rows here in the order of their keys, a chunk at a time."""
    import pyarrow

    parts = -(-count // max(1, min(MOST_ROWS, MOST_PROBS // len(source.origin.class_names))))
    ordered = rows.repartitionByRange(parts, "key").sortWithinPartitions("key", *ROW).select(*source.names)
    packed = ordered.mapInArrow(_packed, "content binary")
    for row in packed.toLocalIterator(prefetchPartitions=True):
        table = pyarrow.ipc.open_stream(io.BytesIO(row["content"])).read_all()
        yield from source.chunks(iter(table.combine_chunks().to_batches()))


def _packed(batches: Batches) -> Batches:
    """Pack the rows of a task into one."""
    import pyarrow

    some = list(batches)
    if not some:
        return
    stream = io.BytesIO()
    with pyarrow.ipc.new_stream(stream, some[0].schema) as writer:
        for batch in some:
            writer.write_batch(batch)
    yield pyarrow.record_batch([pyarrow.array([stream.getvalue()], pyarrow.binary())], names=["content"])


def _noted(chunks: Iterator[PseudoLabelFile], selected: Array, least: Array) -> Iterator[PseudoLabelFile]:
    """Pass chunks on; count the rows of each class, and find the least confidence, `[K]`."""
    for chunk in chunks:
        selected += np.bincount(chunk.label, minlength=len(selected))
        np.minimum.at(least, chunk.label, chunk.confidence)
        yield chunk
