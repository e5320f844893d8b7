"""A stream on Spark: what is there, drift, and a restart after a kill in the middle of a micro-batch."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tailmatch.datamodules.pseudo_labels.columns import in_memory
from tailmatch.datamodules.pseudo_labels.files import write_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin
from tailmatch.lightning_modules.checkpoints.remote_files import file_digest
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.spark.stream import StreamSettings, stream
from tests.spark.conftest import SETTINGS
from tests.spark.test_label import completed
from tests.trained_files import shaken, trained_file

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

NAMES = ["a", "b", "c"]
START = 1_700_000_040  # the beginning of a minute
KILLED = """
import os, signal, sys
from tailmatch.spark.session import spark_session
from tailmatch.spark.stream import StreamSettings, stream
from tailmatch.spark.stream_output import StreamFolder

write, settings, spark = StreamFolder.write_batch, eval(sys.argv[1]), eval(sys.argv[2])

def write_and_die(folder, number, *rest):
    write(folder, number, *rest)
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)

StreamFolder.write_batch = write_and_die
spark_session("killed", spark)
stream(StreamSettings(**settings))
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    network = shaken(CifarResNet(3, depth=8))
    return completed(trained_file(tmp_path / "a.ckpt", network, {"depth": 8}, NAMES))


def put(folder: Path, name: str, time: float, seed: int) -> None:
    """Let an image arrive: written under a name that is ignored, and renamed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    hidden = folder / f".{Path(name).stem}.png"
    hidden.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(hidden)
    os.utime(hidden, (time, time))
    (folder / name).parent.mkdir(exist_ok=True)
    hidden.rename(folder / name)


def put_reference(path: Path, labels: list[int], checkpoint: str) -> None:
    number = len(labels)
    columns = {
        "key": in_memory(np.array([f"{row}.png" for row in range(number)])),
        "size": in_memory(np.ones(number, np.int64)),
        "label": in_memory(np.array(labels)),
        "confidence": in_memory(np.ones(number, np.float32)),
    }
    write_pseudo_labels(path, columns, Origin(NAMES, file_digest(Path(checkpoint))))


def settings_in(folder: Path, checkpoint: str, **more: object) -> dict[str, object]:
    put_reference(folder / "reference.npz", [0, 1, 2] * 100, checkpoint)
    paths = {"input": str(folder / "in"), "model": checkpoint, "reference": str(folder / "reference.npz")}
    return {**paths, "output": str(folder / "out"), "once": True, **more}


def labels_of(folder: Path) -> list[dict[str, object]]:
    return sorted(pq.read_table(folder / "out" / "labels").to_pylist(), key=lambda row: str(row["key"]))


def test_what_is_there_is_labeled_once_and_windows_are_compared(
    tmp_path: Path, checkpoint: str, spark: "SparkSession", capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(60):  # all of one class: the same image
        put(tmp_path / "in", f"deep/{number} ü%20.PNG", START + number, seed=0)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no image")
    os.utime(tmp_path / "in" / "broken.jpg", (START, START))
    (tmp_path / "in" / "_half.png").write_bytes(b"not whole yet")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    settings = StreamSettings(**settings_in(tmp_path, checkpoint, max_files=50, alarm=0.001))  # type: ignore[arg-type]
    handler = signal.getsignal(signal.SIGINT)
    done = stream(settings)
    assert (done.images, done.alarms) == (61, 1) and signal.getsignal(signal.SIGINT) is handler
    said = capsys.readouterr().out
    assert "2023-11-14T22:14:00Z  60 images (1 broken)" in said and "DRIFT" in said
    table = labels_of(tmp_path)
    assert [row["key"] for row in table] == sorted(["broken.jpg", *(f"deep/{k} ü%20.PNG" for k in range(60))])
    assert [row["time"].timestamp() for row in table if row["key"] == "deep/7 ü%20.PNG"] == [START + 7]  # type: ignore[attr-defined]
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).permute(2, 0, 1)
    network = CifarResNet(3, depth=8).eval()
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("network."): state[name] for name in state if name != "class_counts"})
    expected = int(network(pixels[None] / 255).argmax())
    assert {row["label"] for row in table if row["error"] is None} == {expected}
    put(tmp_path / "in", "late.png", START + 1, seed=1)
    assert stream(settings).images == 62
    said = capsys.readouterr().out
    assert "61 images are labeled" in said and "1 late images of the window 2023-11-14T22:14:00Z" in said
    assert "DRIFT" not in said  # it was told before


def test_a_stream_that_is_killed_in_a_batch_comes_back_whole(
    tmp_path: Path, checkpoint: str, spark: "SparkSession"
) -> None:
    for number in range(25):
        put(tmp_path / "in", f"{number:02d}.png", START + 10 * number, seed=number)
    settings = settings_in(tmp_path, checkpoint, max_files=10)
    words = [sys.executable, "-c", KILLED, repr(settings), repr(SETTINGS)]
    killed = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(labels_of(tmp_path)) == 20  # two batches, of which Spark knows one as done
    assert [file.name for file in (tmp_path / "out/_checkpoint/commits").glob("[0-9]*")] == ["0"]
    put(tmp_path / "in", "25.png", START + 250, seed=25)
    assert stream(StreamSettings(**settings)).images == 26  # type: ignore[arg-type]
    assert [row["key"] for row in labels_of(tmp_path)] == [f"{number:02d}.png" for number in range(26)]
    windows = pq.read_table(tmp_path / "out" / "drift.parquet")
    assert windows["images"].to_pylist() == [6, 6, 6, 6, 2] and sum(windows["late"].to_pylist()) == 0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
