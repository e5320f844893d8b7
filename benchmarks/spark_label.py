"""Measure what Spark costs beside a plain loop and `tailmatch predict`: CPU milliseconds an image, and the same bits.

    unzip cifar10-images.zip 'cifar10/test/*'
    OMP_NUM_THREADS=1 python -m benchmarks.spark_label cifar10/test --model best.ckpt [--slots 2] [--repeats 2]

The plain loop is Spark's worker in this process: it reads, decodes, predicts and writes the same rows. Spark labels the
images once to start its workers, which is not counted, and then for the numbers. The CPU time is that of all
processes: of Java and of its Python workers, by the system's own count in `/proc`. That of `tailmatch
predict` is of a process of its own, with its start, which is shown apart as that of a prediction of one image.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pyarrow as pa
import torch
from pyarrow import parquet

from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabelFile
from tailmatch.lightning_modules.inference.arrow_labels import WorkerModel, label_batches
from tailmatch.lightning_modules.inference.label_program import label_program
from tailmatch.spark.images import ImageSource, listed
from tailmatch.spark.label import label_images
from tailmatch.spark.session import spark_session

TICK = os.sysconf("SC_CLK_TCK")


def cpu_of_family() -> dict[int, float]:
    """Return the CPU seconds of this process and of each one below it, without their children."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(fields[1])
        spent[int(folder.name)] = sum(map(int, fields[11:13])) / TICK
    family, found = {os.getpid()}, True
    while found:
        children = {child for child, parent in parents.items() if parent in family} - family
        family |= children
        found = bool(children)
    return {process: spent[process] for process in family if process in spent}


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU and the wall seconds of some work in this process and its children.

    Processes are looked at five times a second, since Spark's daemon does not count those of its workers that ended.
    """
    before, start = cpu_of_family(), time.monotonic()
    last, done = dict(before), Event()

    def watch() -> None:
        while not done.wait(0.2):
            last.update(cpu_of_family())

    watcher = Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    last.update(cpu_of_family())
    return sum(spent - before.get(process, 0.0) for process, spent in last.items()), time.monotonic() - start


def plain_loop(images: str, program: bytes, output: Path) -> None:
    """Label all images of a folder in this process."""
    torch.set_num_threads(1)
    found = listed(ImageSource(images), [])
    assert found is not None
    rows = pa.record_batch({"key": found.keys, "path": [f"{found.root}/{key}" for key in found.keys]})
    parquet.write_table(pa.Table.from_batches(list(label_batches([rows], WorkerModel.load(program)))), output)


def predict(images: str, model: str, output: Path) -> None:
    """Run `tailmatch predict`."""
    command = [sys.executable, "-m", "tailmatch.cli", "predict", "--ckpt_path", model, "--data", "UnlabeledImages"]
    command += ["--data.root", images, "--output", str(output), "--trainer.accelerator", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def same(file: PseudoLabelFile, table: pa.Table) -> bool:
    """Tell whether a table has the keys, labels and confidences of a file, to the bit."""
    ordered = table.sort_by("key")
    order = sorted(range(len(file.key)), key=lambda row: str(file.key[row]).encode())
    return all(
        ordered[name].to_pylist() == getattr(file, name)[order].tolist() for name in ("key", "label", "confidence")
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", help="Folder of images.")
    parser.add_argument("--model", required=True, help="Checkpoint.")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    program = label_program(asked.model).content
    found = listed(ImageSource(asked.images), [])
    assert found is not None
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder)
        one = beside / "one"
        one.mkdir()
        (one / found.keys[0].replace("/", "_")).symlink_to(found.root.resolve() / found.keys[0])
        settings = {"spark.master": f"local[{asked.slots}]", "spark.ui.enabled": "false"}
        session = spark_session("benchmark", settings)

        def on_spark() -> None:
            label_images(asked.images, asked.model, str(beside / "labels"), overwrite=True, session=session)

        on_spark()
        rows = {
            "a plain loop": lambda: plain_loop(asked.images, program, beside / "loop.parquet"),
            f"tailmatch label, {asked.slots} slots": on_spark,
            "tailmatch predict": lambda: predict(asked.images, asked.model, beside / "predict.npz"),
            "tailmatch predict of one image": lambda: predict(str(one), asked.model, beside / "one.npz"),
        }
        print(f"{len(found.keys):,} images, load {os.getloadavg()[0]:.1f}; the best of {asked.repeats} runs")
        print(f"{'':34}{'CPU ms an image':>18}{'CPU s':>10}{'wall s':>10}")
        for name, work in rows.items():
            best = [float("inf"), float("inf")]
            if work is on_spark:
                work()  # Spark ends workers that have nothing to do for a minute
            for _ in range(asked.repeats):
                for file in beside.glob("*.npz"):
                    file.unlink()
                best = [min(pair) for pair in zip(best, measured(work), strict=True)]
            images = 1 if name.endswith("one image") else len(found.keys)
            print(f"{name:34}{1000 * best[0] / images:>18.2f}{best[0]:>10.1f}{best[1]:>10.1f}")
        predict(asked.images, asked.model, beside / "predict.npz")
        file = read_pseudo_labels(beside / "predict.npz")
        for name in ("loop.parquet", "labels"):
            equal = same(file, parquet.read_table(beside / name))
            print(f"{name}: {'the bits of predict' if equal else 'NOT the bits of predict'}")
        session.stop()


if __name__ == "__main__":
    main()
