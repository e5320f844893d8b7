import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import dataset

from tailmatch.callbacks.remedies.darp.prices import fit_prices
from tailmatch.callbacks.remedies.darp.solver import refine_rows
from tailmatch.datamodules.pseudo_labels.parts import PseudoLabelParts
from tailmatch.spark.windows import SECOND
from tests.spark.stream_rows import NAMES, rows, watch

MINUTE = 60 * SECOND


def found(path: Path) -> list[dict[str, object]]:
    table = pq.read_table(path / "drift.parquet")
    return [dict(row, window=int(row["window"].timestamp())) for row in table.to_pylist()]


def test_windows_are_announced_once_and_their_rows_are_pseudo_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = watch(tmp_path)
    seen.take(0, rows([0, 10, 20, 70], [0, 1, -1, 0]))
    assert "images" not in capsys.readouterr().out
    seen.take(1, rows([130] * 30, [0, 1] * 15))  # the first window is over
    said = capsys.readouterr().out
    assert said.startswith("1970-01-01T00:00:00Z  2 images (1 broken)") and said.count("\n") == 1
    seen.take(2, rows([500], [0]))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "1970-01-01T00:01:00Z", "1970-01-01T00:02:00Z"
    ]  # fmt: skip
    table = found(tmp_path)
    assert [(row["window"], row["images"], row["closed"]) for row in table] == [
        (0, 2, True), (60, 1, True), (120, 30, True), (480, 1, False)
    ]  # fmt: skip
    assert table[2]["counts"] == [15, 15] and table[2]["p"] == pytest.approx(1)
    with pytest.warns(UserWarning, match="1 of 35 rows .* have an error"):
        parts = PseudoLabelParts.open(tmp_path / "labels")
    assert (
        parts.origin.class_names == NAMES and sum(len(chunk.key) for chunk in parts.chunks()) == 34
    )  # without the broken one
    assert dataset.dataset(tmp_path / "labels", format="parquet").count_rows() == 35


def test_a_late_image_is_labeled_and_said_and_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = watch(tmp_path)
    seen.take(0, rows([0, 200], [0, 0]))
    capsys.readouterr()
    seen.take(1, rows([5, 6, 201], [1, 1, 0]))
    assert "2 late images of the window 1970-01-01T00:00:00Z" in capsys.readouterr().out
    first = found(tmp_path)[0]
    assert (first["images"], first["late"], first["counts"]) == (1, 2, [1, 0])
    assert pq.read_table(tmp_path / "labels")["late"].to_pylist() == [False, False, True, True, False]


def test_drift_is_an_alarm_for_its_command_and_is_told_again_to_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "said.json"
    code = f"import sys; open({str(said)!r}, 'a').write(sys.stdin.read() + '\\n')"
    seen = watch(tmp_path / "out", (900, 100), command=[sys.executable, "-c", code])
    seen.take(0, rows([0] * 50, [1] * 50))
    seen.take(1, rows([300], [0]))
    assert seen.alarms == 1
    assert "DRIFT: cat 90.0% -> 0.0%, dog 10.0% -> 100.0%" in capsys.readouterr().out
    window = json.loads(said.read_text())
    assert (window["start"], window["end"]) == ("1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z")
    assert window["images"] == 50 and window["p"] < 1e-10
    assert window["classes"][1] == {"name": "dog", "count": 50, "reference": 100}
    (tmp_path / "out" / "_checkpoint").mkdir()
    again = watch(tmp_path / "out", (900, 100), command=[sys.executable, "-c", code])
    assert again.alarms == 0 and again.images == 51 and len(said.read_text().splitlines()) == 1
    assert [row["alarm"] for row in found(tmp_path / "out")] == [True, False]
    again.finish()
    assert (tmp_path / "out" / "drift.png").stat().st_size > 10_000
    assert list((tmp_path / "out" / "tensorboard").glob("events*"))


def test_a_repeated_batch_replaces_its_file_and_its_counts(tmp_path: Path) -> None:
    once, twice = watch(tmp_path / "once"), watch(tmp_path / "twice")
    batches = [rows([0, 30], [0, 1]), rows([61, 150], [1, 1]), rows([20, 300], [0, 0])]
    for number, batch in enumerate(batches):
        once.take(number, batch)
        twice.take(number, batch)
        if number == 1:
            twice.take(number, batch)
    assert found(tmp_path / "once") == found(tmp_path / "twice") and twice.images == 6
    (tmp_path / "twice" / "_checkpoint").mkdir()
    restarted = watch(tmp_path / "twice")  # killed after the file was written
    restarted.take(2, batches[2])
    assert found(tmp_path / "once") == found(tmp_path / "twice") and restarted.images == 6
    keys = pq.read_table(tmp_path / "twice" / "labels")["key"].to_pylist()
    assert len(keys) == len(set(keys)) == 6


@pytest.mark.parametrize("lost", ["drift.parquet", "nothing"])
def test_a_restart_counts_the_windows_from_the_labels(tmp_path: Path, lost: str) -> None:
    seen = watch(tmp_path)
    seen.take(0, rows([0, 30, 61, 200], [0, 1, 1, 0]))
    before = found(tmp_path)
    (tmp_path / "_checkpoint").mkdir()
    (tmp_path / lost).unlink(missing_ok=True)
    restarted = watch(tmp_path)
    assert found(tmp_path) == before
    assert restarted.windows.watermark == seen.windows.watermark == 140 * SECOND


def test_the_clock_closes_windows_while_no_image_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = watch(tmp_path)
    seen.take(0, rows([0, 70], [0, 1]))
    seen.idle(119 * SECOND)
    assert capsys.readouterr().out == "" and not any(row["closed"] for row in found(tmp_path))
    seen.idle(120 * SECOND)
    assert capsys.readouterr().out.startswith("1970-01-01T00:00:00Z")
    assert [row["closed"] for row in found(tmp_path)] == [True, False]
    (tmp_path / "_checkpoint").mkdir()
    restarted = watch(tmp_path)  # it knows of the clock
    restarted.take(1, rows([10], [0]))
    assert [(row["images"], row["late"]) for row in found(tmp_path)] == [(1, 1), (1, 0)]


def test_prices_refine_labels_and_drift_is_of_the_network(tmp_path: Path) -> None:
    probs = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.55, 0.45], [0.8, 0.2]])
    fitted, _ = fit_prices(probs, torch.tensor([1.0, 1.0]), NAMES)
    seen = watch(tmp_path, prices=fitted.prices, keep_probs=True)
    seen.take(0, rows([0, 1, 2, 3, 4], [0, 0, -1, 0, 0], probs.tolist()))
    table = pq.read_table(tmp_path / "labels")
    refined = refine_rows(probs, fitted.prices)
    assert table["label"].to_pylist() == [0, *refined.argmax(1)[1:2].tolist(), -1, *refined.argmax(1)[2:].tolist()]
    assert 1 in table["label"].to_pylist()
    assert table["predicted"].to_pylist() == [0, 0, -1, 0, 0]
    good = [row for row in table["probs"].to_pylist() if row is not None]
    assert np.allclose(good, refined.numpy()) and table["probs"][2].as_py() is None
    assert found(tmp_path)[0]["counts"] == [4, 0]
    lean = watch(tmp_path / "lean", prices=fitted.prices)
    lean.take(0, rows([0, 1, 2, 3], [0, 0, 0, 0], probs.tolist()))
    assert "probs" not in pq.read_schema(lean.folder.batch(0)).names


def test_a_failing_command_is_said_and_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = watch(tmp_path, (900, 100), command=[sys.executable, "-c", "raise SystemExit(7)"])
    seen.take(0, rows([0] * 50, [1] * 50))
    seen.take(1, rows([300], [0]))
    assert "on_drift failed for 1970-01-01T00:00:00Z: exit code 7" in capsys.readouterr().err
    assert seen.alarms == 1
