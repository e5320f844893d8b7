"""DARP on pseudo-labels whose rows stay on Spark's executors: `tailmatch refine --spark true`."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from tailmatch.callbacks.remedies.darp.label_files import Refinement, refine_labels
from tailmatch.callbacks.remedies.darp.label_rows import refined
from tailmatch.callbacks.remedies.darp.prices import FittedPrices, content_of, fit_prices, prices_of
from tailmatch.callbacks.remedies.darp.solver import Prices
from tailmatch.datamodules.arguments import check_choice
from tailmatch.datamodules.output_files import check_apart
from tailmatch.datamodules.pseudo_labels.files import facts_in_file
from tailmatch.datamodules.pseudo_labels.labels import Origin
from tailmatch.spark.barrier import EXCHANGES, Group, check_tasks, run_together
from tailmatch.spark.labels import Batches, Labels, Source, check_labels, one_message, record_batch
from tailmatch.spark.parts import check_folder, whole_folder, write_parts
from tailmatch.spark.session import spark_session

if TYPE_CHECKING:
    from pyspark import Accumulator
    from pyspark.sql import DataFrame, SparkSession

Totals = dict[int, list[float]]
"""The class totals of each partition."""

PLACE = "place"
"""The hash of a row's key and the seed: it says which task has the row, and which rows are a sample."""


def refine_on_spark(
    labels: str | Path,
    output: str | Path | None = None,
    *,
    tasks: int | None = None,
    exchange: str = EXCHANGES[0],
    overwrite: bool = False,
    session: "SparkSession | None" = None,
    **options: Any,
) -> Refinement:
    """Refine pseudo-labels as `refine_labels` does, with the rows in Spark's executors.

    Prices are fitted by tasks that run together and exchange sums, and are applied in one pass. The rows are those of
    `refine_labels` but for the rounding of sums: the order of the rows is another one.

    Args:
        labels: A folder of Parquet files of pseudo-labels, or one file; a path or a URL of the cluster's files.
        output: The folder to write. None: only `save_prices` is written.
        tasks: The number of tasks that fit together. None: as many as run at once.
        exchange: How they exchange sums, one of `EXCHANGES`.
        overwrite: Whether existing outputs are replaced.
        session: The session. None: see `spark_session`.
        options: See `refine_labels`. A `sample` depends on the keys and the seed alone.

    Raises:
        SettingsError: See `refine_labels`; or there are too few slots for the tasks.
    """
    check_choice("exchange", exchange, EXCHANGES)
    check_labels(labels)
    if output is not None:
        check_folder(str(output), overwrite)
        if Path(output).resolve() != Path(labels).resolve():  # which it may replace, when all is read
            check_apart("output", output, "the labels", labels)
    session = session or spark_session("tailmatch refine")
    place = OnSpark(session, check_tasks(session, tasks), exchange)
    with ExitStack() as held:
        folder = None if output is None else held.enter_context(whole_folder(session, str(output), overwrite))
        return refine_labels(labels, folder, overwrite=overwrite, place=place, **options)


@dataclass(frozen=True)
class OnSpark:
    """Spark's executors (see `Place`)."""

    session: "SparkSession"
    tasks: int
    exchange: str

    def check_output(self, output: str | Path, overwrite: bool) -> None:
        """Do nothing: the folder is a new one of `whole_folder`."""

    def open(self, labels: str | Path) -> "RowsOnSpark":
        """Open a folder of Parquet files, or one file."""
        return RowsOnSpark(Labels.open(self.session, labels), self.tasks, self.exchange)


@dataclass(frozen=True)
class RowsOnSpark:
    """Pseudo-labels on executors (see `LabelRows`)."""

    labels: Labels
    tasks: int
    exchange: str

    @property
    def origin(self) -> Origin:
        """The classes and the checkpoint."""
        return self.labels.source.origin

    @property
    def rows(self) -> int:
        """The number of rows that have a label."""
        return self.labels.rows

    @property
    def has_probs(self) -> bool:
        """Whether there are probabilities of all classes."""
        return "probs" in self.labels.source.names

    def fit(
        self, target: Tensor, sample: int | None, alpha: float, tolerance: float, seed: int
    ) -> tuple[FittedPrices, bool]:
        """Fit prices in tasks that run together; the same rows and the same number of tasks give the same bits.

        A sample has the rows with the least hashes of key and seed. It does not depend on the cut into files.
        """
        from pyspark.sql.functions import lit, xxhash64

        rows = self.labels.frame.select(*self.labels.source.names, xxhash64(lit(seed), "key").alias(PLACE))
        if sample is not None and sample < self.rows:
            rows = least(rows, sample, self.rows)
        checked = rows.mapInArrow(
            partial(_checked_probs, source=self.labels.source), f"{PLACE} long, probs array<float>"
        )
        work = partial(_fit, target=target, names=self.origin.class_names, alpha=alpha, tolerance=tolerance)
        fits = run_together(checked, work, "fit string", tasks=self.tasks, by=PLACE, exchange=self.exchange)
        with one_message("fit DARP's prices"):
            found = [json.loads(row["fit"]) for row in fits.collect()]
        fit = found[0]
        if fit["refused"]:
            rank_zero_warn(f"gloo could not be used, and sums traveled through Spark's driver: {fit['refused']}")
        return prices_of(fit["prices"]), fit["converged"]

    def write_refined(self, output: str | Path, prices: Prices) -> Tensor:
        """Refine all rows in one pass; there are as many files as tasks that read them."""
        source, frame = self.labels.source, self.labels.frame
        totals = _by_partition(frame.sparkSession)
        work = partial(_refine, source=source, prices=prices, totals=totals)
        with one_message("refine the rows"):
            rows = frame.select(*source.names).mapInArrow(work, source.schema())
            write_parts(rows, str(output), facts_in_file(source.origin))
        found = [torch.tensor(total, dtype=torch.float64) for _, total in sorted(totals.value.items())]
        return torch.stack(found).sum(0)


def least(rows: "DataFrame", sample: int, total: int) -> "DataFrame":
    """Take the `sample` rows with the least hashes; of equal ones, those with the least keys.

    Only hashes below a bound are sorted. Nearly always, it leaves enough; if not, all are.
    """
    expected = sample + 6 * sample**0.5 + 20
    if expected < total:
        some = rows.where(rows[PLACE] < int(2**64 * (expected / total)) - 2**63)
        if some.count() >= sample:
            rows = some
    return rows.orderBy(PLACE, "key").limit(sample)


# In the tasks


def _checked_probs(batches: Batches, source: Source) -> Batches:
    """Check rows, and keep what a fit needs."""
    import pyarrow

    for batch in batches:
        for _ in source.chunks(iter([batch])):
            yield pyarrow.record_batch([batch[PLACE], batch["probs"]], names=[PLACE, "probs"])


def _fit(
    batches: Batches,
    connect: Callable[[], Group],
    target: Tensor,
    names: list[str],
    alpha: float,
    tolerance: float,
) -> Batches:
    """Fit prices together with the other tasks; the first one tells them."""
    import pyarrow

    probs = in_order_of_place(batches, len(names))
    group = connect()
    fitted, solution = fit_prices(probs, target, names, alpha, tolerance, group.reduce)
    if group.rank == 0:
        fit = {"prices": content_of(fitted), "converged": solution.converged, "refused": group.refused}
        yield pyarrow.record_batch([pyarrow.array([json.dumps(fit)])], names=["fit"])


def in_order_of_place(batches: Batches, classes: int) -> Tensor:
    """Read probabilities `[n, K]` in the order of their hashes: Spark's shuffle gives them in any order."""
    parts = [(batch[PLACE].to_numpy(), batch["probs"].flatten().to_numpy()) for batch in batches]
    order = np.argsort(np.concatenate([np.empty(0, np.int64), *(place for place, _ in parts)]), kind="stable")
    where = torch.empty(len(order), dtype=torch.long)
    where[torch.from_numpy(order)] = torch.arange(len(order))
    probs, first = torch.empty(len(order), classes), 0
    for place, part in parts:
        probs[where[first : first + len(place)]] = torch.from_numpy(part.reshape(-1, classes).copy())
        first += len(place)
    return probs


def _refine(batches: Batches, source: Source, prices: Prices, totals: "Accumulator[Totals]") -> Batches:
    """Refine rows, and tell their class totals."""
    from pyspark import TaskContext

    reached = torch.zeros(len(source.origin.class_names), dtype=torch.float64)
    for content in refined(source.chunks(batches), prices, reached):
        yield record_batch(content, source.names)
    context = TaskContext.get()
    totals.add({context.partitionId() if context else 0: reached.tolist()})


def _by_partition(session: "SparkSession") -> "Accumulator[Totals]":
    """Make a dictionary that tasks add to; of a job that writes, Spark adds each task once, also if it was repeated."""
    from pyspark.accumulators import AccumulatorParam

    class Union(AccumulatorParam[Totals]):  # type: ignore[misc]  # pyspark need not be there
        def zero(self, value: Totals) -> Totals:
            return {}

        def addInPlace(self, value1: Totals, value2: Totals) -> Totals:  # noqa: N802
            value1.update(value2)
            return value1

    return session.sparkContext.accumulator({}, Union())
