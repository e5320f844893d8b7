"""The rows that are selected on Spark are those that are selected on one machine."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parts import write_chunks
from tailmatch.datamodules.pseudo_labels.selection import select_labels
from tailmatch.spark import select
from tailmatch.spark.select import select_on_spark
from tests.typed import call_here

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 300


def pool() -> PseudoLabelFile:
    """Rows of which many are equally confident, and many have the content of another one."""
    random = np.random.default_rng(0)
    probs = np.round(random.dirichlet([0.3] * 3, ROWS) * 8) / 8
    probs[:, 2] = 1 - probs[:, 0] - probs[:, 1]
    keys = np.array([f"{row:03}{'é' if row % 7 == 0 else 'z'}.png" for row in range(ROWS)])
    digest = random.integers(0, 200, (ROWS, 1)).astype(np.uint8)
    rows = probs.astype(np.float32)
    origin = Origin(["a", "b", "c"], "c0")
    return PseudoLabelFile(keys, rows.argmax(1), rows.max(1), rows, origin, np.arange(ROWS), digest)


def write(folder: Path, rows: PseudoLabelFile) -> Path:
    folder.mkdir()
    for number, some in enumerate(np.array_split(np.random.default_rng(1).permutation(ROWS), 2)):
        write_chunks(folder / f"{number}.parquet", iter([rows.take(some)]), rows.origin)
    return folder


def same(labels: Path, tmp_path: Path, session: "SparkSession", **rule: Any) -> None:
    here = select_labels(labels, tmp_path / "here.npz", overwrite=True, **rule)
    there = select_on_spark(labels, tmp_path / "there.npz", overwrite=True, session=session, **rule)
    expected, found = read_pseudo_labels(tmp_path / "here.npz"), read_pseudo_labels(tmp_path / "there.npz")
    expected = expected.take(expected.key.argsort())
    assert found.origin == expected.origin and found.arrays().keys() == expected.arrays().keys()
    for name, array in expected.arrays().items():
        assert np.array_equal(array, found.arrays()[name]), name
    for name, value in vars(here).items():
        assert np.array_equal(value, getattr(there, name)), name


@pytest.mark.spark
@pytest.mark.parametrize("rule", [{"per_class": 20}, {"share": 0.3}, {"threshold": 0.75}])
def test_the_same_rows_as_on_one_machine(
    rule: dict[str, Any], spark: "SparkSession", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "MOST_ROWS", 50)  # several chunks
    same(write(tmp_path / "labels", pool()), tmp_path, spark, **rule)


@pytest.mark.spark
def test_without_digests_and_probs(spark: "SparkSession", tmp_path: Path) -> None:
    labels = write(tmp_path / "labels", replace(pool(), digest=None, probs=None))
    same(labels, tmp_path, spark, threshold=0.875)
    same(labels, tmp_path, spark, per_class=1000)


@pytest.mark.spark
def test_what_does_not_fit_is_refused(spark: "SparkSession", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = pool()
    write(Path("labels"), replace(rows, confidence=rows.confidence * np.float32(0.5)))
    write(Path("wrong"), replace(rows, label=rows.label + 2))
    write_chunks(Path("taken.npz"), iter([rows]), rows.origin)
    before = sorted(tmp_path.rglob("*"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"threshold": 0.9}, "threshold is 0.9, and the largest confidence of labels is 0.5"),
        ({}, "give one of per_class, share and threshold"),
        ({"per_class": 1, "labels": "wrong"}, "wrong is not a pseudo-label file: .* rows have no key, .* not 0 to 2"),
        ({"per_class": 1, "labels": "nowhere"}, "no pseudo-labels nowhere"),
        ({"per_class": 1, "output": "taken.npz"}, "taken.npz exists"),
    ]
    for asked, message in cases:
        with pytest.raises(SettingsError, match=message):
            select_on_spark(**{"labels": "labels", "output": "some.npz", "session": spark, **asked})
        assert sorted(tmp_path.rglob("*")) == before, message


@pytest.mark.spark
def test_the_command(spark: "SparkSession", tmp_path: Path) -> None:
    labels, output = write(tmp_path / "labels", pool()), tmp_path / "some.parquet"
    done = call_here("select", f"--labels={labels}", "--per_class=3", f"--output={output}", "--spark=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"9 pseudo-labels: {output}"
    assert len(read_pseudo_labels(output).key) == 9
