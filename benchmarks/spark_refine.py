"""Measure a refinement by DARP on Spark beside the one of a single process, on this machine.

    OMP_NUM_THREADS=1 python -m benchmarks.spark_refine [--rows 1000000] [--classes 10] [--tasks 2] [--allgather true]

Synthetic predictions of `benchmarks/darp_solver.py` are written as a folder of Parquet files. The fit is measured in
the tasks themselves, as the solver with its sums, and the sums alone. The commands are measured as a whole, without
the start of Python and Java; the first one on Spark also starts Python workers, which import torch.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.darp_solver import predictions
from tailmatch.callbacks.remedies.darp.label_files import refine_labels
from tailmatch.callbacks.remedies.darp.prices import fit_prices
from tailmatch.callbacks.remedies.darp.rows import Reduce
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parts import PseudoLabelParts, write_chunks
from tailmatch.spark.barrier import Group, run_together
from tailmatch.spark.refine import PLACE, in_order_of_place, refine_on_spark
from tailmatch.spark.session import spark_session

FILES = 8


class Timed:
    """A sum over ranks that notes how long it takes, with the wait for the others."""

    def __init__(self, reduce: Reduce) -> None:
        self.reduce, self.count, self.seconds = reduce, 0, 0.0

    def __call__(self, value: Tensor) -> Tensor:
        """Add up."""
        begin = time.perf_counter()
        total = self.reduce(value)
        self.count, self.seconds = self.count + 1, self.seconds + time.perf_counter() - begin
        return total


def timed_fit(batches: Iterator[Any], connect: Callable[[], Group], target: Tensor, names: list[str]) -> Iterator[Any]:
    """Fit in a task, and tell what it took."""
    import pyarrow

    begin = time.perf_counter()
    probs = in_order_of_place(batches, len(names))
    read = time.perf_counter()
    group = connect()
    connected = time.perf_counter()
    timed = Timed(group.reduce)
    fit_prices(probs, target, names, reduce=timed)
    end = time.perf_counter()
    took = {"rows": len(probs), "read": read - begin, "connect": connected - read, "fit": end - connected}
    took |= {"sums": timed.count, "of it sums": timed.seconds}
    yield pyarrow.record_batch([pyarrow.array([json.dumps(took)])], names=["took"])


def write(folder: Path, rows: int, classes: int) -> Tensor:
    """Write predictions and return their class totals."""
    probs, target = predictions(rows, classes)
    confidence, label = probs.max(dim=1)
    origin = Origin([f"class {k}" for k in range(classes)], "")
    folder.mkdir()
    for number, some in enumerate(np.array_split(np.arange(rows), FILES)):
        keys = np.array([f"images/{row:09}.jpg" for row in some])
        part = PseudoLabelFile(keys, label.numpy()[some], confidence.numpy()[some], probs.numpy()[some], origin, some)
        write_chunks(folder / f"{number}.parquet", iter([part]), origin)
    return target


def fit_in_tasks(labels: Path, target: Tensor, tasks: int, exchange: str) -> None:
    """Fit once and print what the tasks tell."""
    from pyspark.sql.functions import lit, xxhash64

    session = spark_session("measure")
    names = PseudoLabelParts.open(labels).origin.class_names
    rows = session.read.parquet(str(labels)).select(xxhash64(lit(0), "key").alias(PLACE), "probs")
    work = partial(timed_fit, target=target, names=names)
    for row in run_together(rows, work, "took string", tasks=tasks, by=PLACE, exchange=exchange).collect():
        took = json.loads(row["took"])
        shown = ", ".join(
            f"{name} {value:.2f} s" if isinstance(value, float) else f"{name} {value:,}" for name, value in took.items()
        )
        print(f"  task, {exchange}: {shown}", flush=True)


def measured(name: str, function: Callable[[], Any]) -> None:
    """Print how long a function takes."""
    begin = time.perf_counter()
    function()
    print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--allgather", choices=("true", "false"), default="true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder, "labels")
        target = write(labels, args.rows, args.classes)
        asked: dict[str, Any] = {"target": target.tolist(), "overwrite": True}
        names = [f"class {k}" for k in range(args.classes)]
        measured(
            "one process, fit in memory", partial(fit_prices, predictions(args.rows, args.classes)[0], target, names)
        )
        measured("one process, read, fit and write", lambda: refine_labels(labels, Path(folder, "a.parquet"), **asked))
        spark = partial(refine_on_spark, labels, Path(folder, "b"), tasks=args.tasks, **asked)
        spark_session("measure", {"spark.master": f"local[{args.tasks}]", "spark.ui.enabled": "false"})
        measured("Spark with gloo, read, fit and write, first time", partial(spark, exchange="gloo"))
        measured("Spark with gloo, read, fit and write, again", partial(spark, exchange="gloo"))
        for exchange in ("gloo", "allgather") if args.allgather == "true" else ("gloo",):
            fit_in_tasks(labels, target, args.tasks, exchange)


if __name__ == "__main__":
    main()
