"""Label images as they arrive in a folder, by Spark's Structured Streaming, and watch their predicted classes."""

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.callbacks.remedies.darp.prices import FittedPrices, read_prices
from tailmatch.callbacks.writers.pseudo_labels import checkpoint_digest
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.decoding import IMAGE_SUFFIXES
from tailmatch.datamodules.locks import sole_writer
from tailmatch.datamodules.pseudo_labels.files import facts_in_file
from tailmatch.datamodules.pseudo_labels.labels import Origin
from tailmatch.lightning_modules.checkpoints.remote_files import file_digest
from tailmatch.lightning_modules.inference.arrow_labels import Wanted, output_schema
from tailmatch.lightning_modules.inference.label_program import LabelProgram, label_program
from tailmatch.spark.label import DDL
from tailmatch.spark.reference import digests_of, read_reference
from tailmatch.spark.session import check_installed, spark_session, sql_settings
from tailmatch.spark.stream_output import DriftTable, StreamFolder
from tailmatch.spark.stream_report import Reporter
from tailmatch.spark.stream_settings import StreamSettings, command_of
from tailmatch.spark.stream_worker import StreamTask
from tailmatch.spark.watch import Watch
from tailmatch.spark.windows import SECOND, Windows, microseconds
from tailmatch.spark.worker import LabelTask

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

FILES = "path string, modificationTime timestamp, length bigint, content binary"
"""The schema of Spark's source of files. The content is not read by it: workers read the files."""

SQL = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.files.openCostInBytes": "4096",  # with the default of 4 MiB, each small file would be a task
    # With the default of 32, a micro-batch of more files would list each of them in a task of its own.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "1000000",
}


@dataclass(frozen=True)
class Streamed:
    """What a stream did.

    Attributes:
        images: The number of images in its output.
        alarms: The number of windows with drift since this start.
    """

    images: int
    alarms: int


def stream(settings: StreamSettings, stop: Callable[[], bool] = lambda: False) -> Streamed:
    """Label images as they arrive, until the end of `once`, an alarm of `until_drift`, or `stop`.

    Args:
        settings: What it does. The same settings continue where a stream ended or was killed.
        stop: A function that tells whether to end; a micro-batch is completed before.

    Raises:
        SettingsError: A setting or a file is wrong; or the output is of a stream with other settings.
    """
    settings.check()
    check_installed()
    folder = StreamFolder(Path(settings.output))
    advice = "wait until it ends, or name another output"
    with sole_writer(folder.path / "stream.lock", f"the output {folder.path}", advice):
        program = label_program(settings.model, settings.image_size, settings.trust)
        for note in program.notes:
            rank_zero_warn(note)
        watch = _watch(settings, folder, program)
        try:
            with _signals_kept():
                session = spark_session("tailmatch stream")
            with sql_settings(session, SQL):
                _run(settings, _labels(session, settings, program), watch, stop)
        finally:
            watch.finish()
    return Streamed(watch.images, watch.alarms)


def _watch(settings: StreamSettings, folder: StreamFolder, program: LabelProgram) -> Watch:
    """Read what belongs to the stream, and begin or continue its output."""
    names, model = program.class_names, checkpoint_digest(settings.model)
    reference = read_reference(Path(settings.reference), settings.model, names, digests_of(settings.model))
    fitted = None if settings.prices is None else _prices(settings.prices, names)
    facts = facts_in_file(Origin(names, model))
    same = {
        "input": str(Path(settings.input).resolve()),
        "model": model,
        "reference": reference.tolist(),
        "class_names": names,
        "window": settings.window,
        "late": settings.late,
        "prices": None if settings.prices is None else file_digest(Path(settings.prices)),
        "probs": settings.probs,
    }
    continued = folder.open(same)
    width, late = microseconds("window", settings.window), microseconds("late", settings.late)
    drifts = DriftTable(folder.drift, facts, reference, settings.alarm, settings.least_distance)
    command = None if settings.on_drift is None else command_of(settings.on_drift)
    watch = Watch(
        folder,
        Windows(width, late, len(names)),
        drifts,
        Reporter(folder.path, names, reference, width, command),
        facts,
        prices=None if fitted is None else fitted.prices,
        keep_probs=settings.probs,
    )
    if continued:
        print(f"{folder.path} is continued: {watch.images:,} images are labeled", flush=True)
    return watch


def _prices(path: str, class_names: list[str]) -> FittedPrices:
    fitted = read_prices(Path(path))
    if fitted.class_names != class_names:
        raise SettingsError(
            f"{path} is of other classes: {fitted.class_names[:10]}, and the model has {class_names[:10]}"
        )
    return fitted


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handler of Ctrl-C, which Spark replaces by one that ends its jobs."""
    before = signal.getsignal(signal.SIGINT)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, before)


def _labels(session: "SparkSession", settings: StreamSettings, program: LabelProgram) -> "DataFrame":
    """Plan the labels of the files that arrive: the columns of a worker, with the time of each file."""
    from pyspark.sql.functions import col, unix_micros

    root = str(Path(settings.input).resolve())
    reader = session.readStream.format("binaryFile").schema(FILES).option("recursiveFileLookup", "true")
    options = {
        "pathGlobFilter": f"*.{{{','.join(_any_case(suffix[1:]) for suffix in sorted(IMAGE_SUFFIXES))}}}",
        "maxFilesPerTrigger": str(settings.max_files),
        "maxFileAge": f"{microseconds('remember', settings.remember) // SECOND}s",
        "ignoreMissingFiles": "true",
    }
    if settings.archive is not None:
        options |= {"cleanSource": "archive", "sourceArchiveDir": str(Path(settings.archive).resolve())}
    for name, value in options.items():
        reader = reader.option(name, value)
    files = reader.load(root).select("path", unix_micros(col("modificationTime")).alias("time"))
    wanted = Wanted(probs=settings.probs or settings.prices is not None)
    shared = session.sparkContext.broadcast(program.content)
    task = StreamTask(LabelTask(shared, hashlib.sha256(program.content).hexdigest(), wanted), root)
    columns = [f"`{field.name}` {DDL[str(field.type)]}" for field in output_schema(wanted)]
    return files.mapInArrow(task, ", ".join(["`time` bigint", *columns]))


def _any_case(suffix: str) -> str:
    return "".join(f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else letter for letter in suffix)


def _run(settings: StreamSettings, labels: "DataFrame", watch: Watch, stop: Callable[[], bool]) -> None:
    """Run the query until it ends or should end."""
    from pyspark.errors import StreamingQueryException

    ending = threading.Event()
    failed: list[Exception] = []

    def take(rows: "DataFrame", number: int) -> None:
        with watch.busy:
            if ending.is_set():
                raise InterruptedError("the stream ends")  # so that Spark does not take this micro-batch for done
            try:
                watch.take(number, rows.toArrow())
            except Exception as error:
                failed.append(error)
                raise

    writer = labels.writeStream.foreachBatch(take).option("checkpointLocation", str(watch.folder.checkpoint.resolve()))
    every = microseconds("every", settings.every)
    kind: dict[str, Any] = {"availableNow": True} if settings.once else {"processingTime": f"{every // SECOND} seconds"}
    begun = int(time.time() * SECOND)
    query = writer.trigger(**kind).start()
    try:
        while not query.awaitTermination(1):
            if stop() or (settings.until_drift and watch.alarms and not settings.once):
                break
            _close_by_clock(query, watch, every)
        else:
            watch.idle(begun)
    except StreamingQueryException as error:
        raise failed[0] if failed else error from None
    finally:
        ending.set()
        with watch.busy:  # a micro-batch is completed
            pass
        query.stop()


def _close_by_clock(query: "StreamingQuery", watch: Watch, every: int) -> None:
    """Close windows by the clock while no image waits: all that were there two looks ago are labeled."""
    now = int(time.time() * SECOND)
    if watch.busy.acquire(blocking=False):
        try:
            status = query.status
            if "aiting" in status["message"] and not (status["isDataAvailable"] or status["isTriggerActive"]):
                watch.idle(now - 2 * every - SECOND)
        finally:
            watch.busy.release()
