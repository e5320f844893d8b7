"""Label images on Spark: a model in each worker process, and a folder of Parquet files with the labels."""

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.datamodules.arguments import SettingsError, check_between, check_count, check_share
from tailmatch.datamodules.output_files import check_apart
from tailmatch.datamodules.pseudo_labels.files import facts_in_file
from tailmatch.datamodules.pseudo_labels.labels import Origin
from tailmatch.lightning_modules.inference.arrow_labels import BATCH, Wanted, output_schema
from tailmatch.spark.images import ImageSource, listed, listed_frame, packed_frame
from tailmatch.spark.labels import one_message
from tailmatch.spark.parts import check_folder, literal, whole_folder, write_parts
from tailmatch.spark.session import spark_session, sql_settings
from tailmatch.spark.worker import LabelTask

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from tailmatch.lightning_modules.inference.label_program import LabelProgram

MAX_BAD_SHARE = 0.001
"""The largest share of images without a label. Web crawls have some truncated files in a thousand; a disk that is not
mounted on one of many machines, a wrong folder or a wrong column loses far more."""

ROWS_A_MESSAGE = 256
"""The rows that Java hands to Python at a time: with images in them, its default of 10,000 would fill the memory."""

NAMED = 5


@dataclass(frozen=True)
class Labeled:
    """What a labeling did.

    Attributes:
        images: The number of images.
        bad: The number of those that have an `error` instead of a label.
        examples: Some of these, with the error.
        seconds: The time it took, without the start of Spark.
    """

    images: int
    bad: int
    examples: list[str]
    seconds: float


def label_images(
    images: str,
    model: str,
    output: str,
    *,
    image_column: str = "image",
    root: str | None = None,
    image_suffix: str = "",
    probs: bool = False,
    top: int = 0,
    batch_size: int = BATCH,
    image_size: int | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    overwrite: bool = False,
    trust: bool = False,
    session: "SparkSession | None" = None,
) -> Labeled:
    """Label images and write a folder of pseudo-labels.

    Args:
        images: A folder of image files (at any depth), a table with their paths, or Parquet with the columns `key` (or
            `path`) and `content`, the bytes of the files.
        model: A checkpoint, or a `.pt2` file of `tailmatch export`.
        output: The folder to write.
        image_column: The column of a table with the path of each image.
        root: The folder that these paths are relative to. None: that of the table.
        image_suffix: A suffix to append to each path.
        probs: Whether to write the probabilities of all classes, which `refine` needs.
        top: The number of most likely classes to write, with their probabilities; 0: none.
        batch_size: The number of images that pass through the network together.
        image_size: The height and width of the images, for a model that does not say them.
        max_bad_share: The largest share of images without a label, in [0, 1].
        overwrite: Whether an existing output is replaced.
        trust: Whether the model may run code outside this package; a `.pt2` file is such code.
        session: The session. None: see `spark_session`.

    Raises:
        SettingsError: An argument is wrong; or more images cannot be read than `max_bad_share` allows, and then nothing
            is written.
    """
    check_count("batch_size", batch_size)
    check_count("top", top, 0)
    check_share("max_bad_share", max_bad_share)
    check_folder(output, overwrite)
    from tailmatch.callbacks.writers.pseudo_labels import checkpoint_digest  # these two import Lightning
    from tailmatch.lightning_modules.inference.label_program import label_program

    program = label_program(model, image_size, trust)
    if top:
        check_between("top", top, 1, len(program.class_names), "the number of classes")
    source = ImageSource(images, image_column, root, image_suffix)
    found = listed(source, program.levels)
    if found is None:
        check_apart("output", output, "the images", images)
    for note in program.notes:
        rank_zero_warn(note)
    facts = facts_in_file(Origin(program.class_names, checkpoint_digest(model)))
    wanted = Wanted(batch_size, probs, top)
    session = session or spark_session("tailmatch label")
    with whole_folder(session, output, overwrite) as folder:
        start = time.monotonic()
        frame = (
            packed_frame(session, source, program.levels) if found is None else listed_frame(session, found, batch_size)
        )
        with sql_settings(session, {"spark.sql.execution.arrow.maxRecordsPerBatch": str(ROWS_A_MESSAGE)}):
            with one_message(f"label the images of {images}"):
                total, bad = _write(session, labels_of(frame, program, wanted), folder, facts)
        labeled = Labeled(total, bad, _examples(session, folder) if bad else [], time.monotonic() - start)
        _check_bad_share(labeled, images, max_bad_share)
    return labeled


def _check_bad_share(labeled: Labeled, images: str, most: float) -> None:
    """Refuse a labeling of nothing, or one in which too many images have no label."""
    total, bad = labeled.images, labeled.bad
    if not total:
        raise SettingsError(f"{images} has no images in it")
    if bad > most * total:
        raise SettingsError(
            f"{bad:,} of {total:,} images cannot be labeled, more than max_bad_share {most} allows, so nothing was "
            f"written: {'; '.join(labeled.examples)}{f' and {bad - NAMED:,} more' if bad > NAMED else ''}"
        )


def labels_of(frame: "DataFrame", program: "LabelProgram", wanted: Wanted) -> "DataFrame":
    """Label the rows of a DataFrame, of which `arrow_labels.py` describes the columns."""
    shared = frame.sparkSession.sparkContext.broadcast(program.content)
    task = LabelTask(shared, hashlib.sha256(program.content).hexdigest(), wanted)
    return frame.mapInArrow(
        task, ", ".join(f"`{field.name}` {DDL[str(field.type)]}" for field in output_schema(wanted))
    )


DDL = {
    "string": "string",
    "int64": "bigint",
    "binary": "binary",
    "float": "float",
    "list<item: float>": "array<float>",
    "list<item: int64>": "array<bigint>",
}
"""Spark's names of Arrow's types."""


def _write(session: "SparkSession", labels: "DataFrame", folder: str, facts: dict[str, Any]) -> tuple[int, int]:
    """Write the rows, and return how many they are and how many have an error."""
    from pyspark.sql import Observation
    from pyspark.sql.functions import count

    seen = Observation("labels")
    write_parts(labels.observe(seen, count("*").alias("total"), count("error").alias("bad")), folder, facts)
    counts = seen.get
    return int(counts["total"]), int(counts["bad"])


def _examples(session: "SparkSession", folder: str) -> list[str]:
    bad = session.read.parquet(literal(folder)).where("error is not null")
    return [f"{row.key} ({row.error})" for row in bad.select("key", "error").limit(NAMED).collect()]
