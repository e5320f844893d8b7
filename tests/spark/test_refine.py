"""DARP with the rows in Spark's tasks: the prices and rows of the local command, from any cut into files."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.label_files import refine_labels
from tailmatch.callbacks.remedies.darp.prices import fit_prices
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels.files import facts_in_file
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parquet import SIDECAR
from tailmatch.datamodules.pseudo_labels.parts import PseudoLabelParts, write_chunks
from tailmatch.spark.labels import record_batch
from tailmatch.spark.parts import write_parts
from tailmatch.spark.refine import PLACE, in_order_of_place, refine_on_spark
from tests.callbacks.remedies.darp.test_label_files import labels, prior
from tests.callbacks.remedies.darp.test_solver import realistic_problem
from tests.typed import call_here

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 3000


def content(folder: Path) -> PseudoLabelFile:
    """All rows of a file or folder, by their keys."""
    chunks = list(PseudoLabelParts.open(folder).chunks())
    together = {name: np.concatenate([chunk.arrays()[name] for chunk in chunks]) for name in chunks[0].arrays()}
    whole: PseudoLabelFile = replace(chunks[0], **together)
    return whole.take(whole.key.argsort())


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Tensor]:
    """A folder of three parts, the same rows in one file in another order, and the class totals to reach."""
    path = tmp_path_factory.mktemp("problem")
    probs, target = realistic_problem(ROWS, 10)
    whole = content(labels(path / "whole.parquet", probs))
    order = np.random.default_rng(0).permutation(ROWS)
    (path / "parts").mkdir()
    for number, some in enumerate(np.array_split(order, [500, 2500])):
        write_chunks(path / "parts" / f"{number}.parquet", iter([whole.take(some)]), whole.origin)
    prior(path / "prior.json", target)
    return path / "parts", path / "whole.parquet", target


def test_rows_are_put_in_the_order_of_their_places() -> None:
    random = np.random.default_rng(0)
    place, probs = random.permutation(1000), random.random((1000, 3), np.float32)
    cuts = np.split(np.arange(1000), [10, 11, 500])
    columns = [[pa.array(place[cut]), pa.array(list(probs[cut]), pa.list_(pa.float32()))] for cut in cuts]
    batches = [pa.record_batch(pair, names=[PLACE, "probs"]) for pair in columns]
    assert np.array_equal(in_order_of_place(iter(batches), 3).numpy(), probs[place.argsort()])
    assert in_order_of_place(iter([]), 3).shape == (0, 3)


def test_ranks_that_add_up_fit_the_prices_of_one() -> None:
    probs, target = realistic_problem(ROWS, 10)
    names = [f"class {k}" for k in range(10)]
    alone, _ = fit_prices(probs, target, names)
    doubled, solution = fit_prices(probs, target, names, reduce=lambda value: 2 * value)  # a rank with the same rows
    assert solution.converged and doubled.rows == 2 * ROWS
    assert torch.allclose(doubled.errors * 2**0.5, alone.errors, rtol=1e-3)
    assert torch.allclose(doubled.prices.nu, alone.prices.nu, atol=1e-2)


def test_record_batches_have_the_types_of_the_schema(problem: tuple[Path, Path, Tensor]) -> None:
    whole = replace(content(problem[1]).take(np.arange(3)), digest=np.arange(6, dtype=np.uint8).reshape(3, 2))
    batch = record_batch(whole, list(whole.arrays()))
    kinds = {"key": pa.string(), "size": pa.int64(), "digest": pa.binary(), "label": pa.int64()}
    kinds |= {"confidence": pa.float32(), "probs": pa.list_(pa.float32())}
    assert {field.name: field.type for field in batch.schema} == kinds
    assert batch["digest"].to_pylist() == [b"\0\1", b"\2\3", b"\4\5"]
    assert whole.probs is not None and batch["probs"].to_pylist() == whole.probs.tolist()


@pytest.mark.spark
def test_the_rows_are_those_of_one_process(
    spark: "SparkSession", problem: tuple[Path, Path, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, whole, target = problem
    refine = partial(refine_on_spark, session=spark, target=parts.parent / "prior.json", exchange="gloo")
    done = refine(parts, tmp_path / "refined", save_prices=tmp_path / "darp.json")
    alone = refine_labels(whole, tmp_path / "alone.parquet", target=target.tolist())
    here, there = content(tmp_path / "alone.parquet"), content(tmp_path / "refined")
    assert here.key.tolist() == there.key.tolist() and here.origin == there.origin
    assert np.array_equal(here.label, there.label) and (here.size == there.size).all()
    assert here.probs is not None and there.probs is not None
    assert np.abs(here.probs - there.probs).max() <= 2e-5  # within the solver's tolerance of the same class totals
    assert done.totals is not None and alone.totals is not None
    assert torch.allclose(done.totals, torch.from_numpy(there.probs.sum(0, dtype=np.float64)), rtol=1e-12)
    assert torch.allclose(done.totals, target, rtol=1e-4) and torch.allclose(done.target, target)
    assert done.rows == done.fitted.rows == ROWS and done.errors.max() == 0
    # The same rows in one file, in another order, give the same bits, and so do other ways to add up.
    refine(whole, save_prices=tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "darp.json").read_bytes()


@pytest.mark.spark
def test_sums_through_the_driver_give_the_same_prices(spark: "SparkSession", tmp_path: Path) -> None:
    probs, target = realistic_problem(200, 3)
    source = labels(tmp_path / "labels.parquet", probs)
    for exchange in ("gloo", "allgather"):
        output = tmp_path / f"{exchange}.json"
        refine_on_spark(
            source, session=spark, target=target.tolist(), save_prices=output, exchange=exchange, tolerance=0.3
        )
    assert (tmp_path / "gloo.json").read_bytes() == (tmp_path / "allgather.json").read_bytes()


@pytest.mark.spark
def test_a_sample_does_not_depend_on_the_files_and_its_prices_are_applied_as_here(
    spark: "SparkSession", problem: tuple[Path, Path, Tensor], tmp_path: Path
) -> None:
    parts, whole, target = problem
    options: dict[str, Any] = {"target": target.tolist(), "sample": 1200, "max_error": 0.5}
    prices = [tmp_path / f"{number}.json" for number in range(3)]
    refine_on_spark(parts, tmp_path / "refined", session=spark, save_prices=prices[0], **options)
    refine_on_spark(whole, session=spark, save_prices=prices[1], **options)
    refine_on_spark(whole, session=spark, save_prices=prices[2], seed=1, **options)
    assert prices[0].read_bytes() == prices[1].read_bytes() != prices[2].read_bytes()
    assert json.loads(prices[0].read_text())["rows"] == 1200
    refine_labels(whole, tmp_path / "alone.parquet", prices=prices[0])
    here, there = content(tmp_path / "alone.parquet"), content(tmp_path / "refined")
    assert here.probs is not None and there.probs is not None
    assert np.abs(here.probs - there.probs).max() <= 1e-6 and np.array_equal(here.label, there.label)


@pytest.mark.spark
def test_rows_with_errors_are_left_out_and_counted(
    spark: "SparkSession", problem: tuple[Path, Path, Tensor], tmp_path: Path
) -> None:
    from pyspark.sql import functions as F

    parts, whole, target = problem
    frame = spark.read.parquet(str(parts)).withColumn("error", F.lit(None).cast("string"))
    bad = frame.limit(7).select(
        F.concat(F.lit("x"), "key").alias("key"),
        *("size", F.lit(-1).cast("long").alias("label"), F.lit(0).cast("float").alias("confidence")),
        *(F.lit(None).cast("array<float>").alias("probs"), F.lit("cut off").alias("error")),
    )
    write_parts(frame.unionByName(bad), str(tmp_path / "labels"), facts_in_file(content(whole).origin))
    refine_labels(whole, save_prices=tmp_path / "darp.json", target=target.tolist())
    with pytest.warns(UserWarning, match="7 of 3,007 rows of .*labels have an error"):
        done = refine_on_spark(tmp_path / "labels", tmp_path / "refined", session=spark, prices=tmp_path / "darp.json")
    assert done.rows == ROWS and len(content(tmp_path / "refined").key) == ROWS
    assert (tmp_path / "refined" / SIDECAR).is_file()


@pytest.mark.spark
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    spark: "SparkSession", problem: tuple[Path, Path, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, whole, target = problem
    monkeypatch.chdir(tmp_path)
    Path("taken").mkdir()
    Path("empty").mkdir()
    plain = content(whole)
    write_chunks(Path("bare.parquet"), iter([replace(plain, probs=None)]), plain.origin)
    wrong = replace(plain, probs=2 * plain.probs) if plain.probs is not None else plain
    write_chunks(Path("wrong.parquet"), iter([wrong]), plain.origin)
    labels(Path("whole.npz"), torch.eye(3))
    Path("others.json").write_text(json.dumps({"class_names": ["a"], "counts": [1]}))
    before = sorted(tmp_path.rglob("*"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"output": "taken"}, "taken exists"),
        ({"target": "others.json"}, r"others.json is of other classes: \['a'\], and the data has"),
        ({"labels": "bare.parquet"}, "bare.parquet has no probs, which DARP refines"),
        ({"labels": "empty"}, "the folder empty has no .parquet files"),
        ({"labels": "nowhere"}, "no pseudo-labels nowhere"),
        ({"labels": "whole.npz"}, "whole.npz is an .npz file, and Spark reads Parquet: leave out --spark"),
        ({"labels": "wrong.parquet"}, r"wrong.parquet is not a pseudo-label file: probs of \d+.png is"),
        ({"tasks": 3}, "tasks is 3, and they must all run at once, but Spark runs 2"),
        ({"exchange": "mail"}, "exchange is 'mail'"),
        ({"sample": 50, "max_error": 0.01}, "sample is 50, too few for the class"),
        ({"prices": "no.json"}, "give either target"),
    ]
    for changed, message in cases:
        asked = {"labels": parts, "output": "refined", "target": target.tolist(), "session": spark, **changed}
        with pytest.raises(SettingsError, match=message):
            refine_on_spark(**asked)
        assert sorted(tmp_path.rglob("*")) == before, message


@pytest.mark.spark
def test_the_command(spark: "SparkSession", problem: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    words = ["refine", f"--labels={problem[0]}", f"--target={problem[0].parent / 'prior.json'}", "--spark=true"]
    done = call_here(*words, f"--output={tmp_path / 'refined'}", f"--save_prices={tmp_path / 'darp.json'}")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert any(line.split()[:4] == ["class", "target", "standard", "error"] for line in lines)
    assert lines[-2:] == [f"prices: {tmp_path / 'darp.json'}", f"refined pseudo-labels: {tmp_path / 'refined'}"]


def test_what_is_for_spark_is_refused_without_it(tmp_path: Path) -> None:
    done = call_here("refine", "--labels=a.npz", f"--output={tmp_path / 'a.npz'}", "--tasks=2")
    assert done.returncode == 1 and "tasks are for Spark: add --spark true" in done.stderr
