"""Tables of predictions: they say what the network says, of every image in order, in every format."""

import csv
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from pytorch_lightning import Callback, Trainer, seed_everything

from tailmatch.callbacks import PredictionWriter, PseudoLabelWriter
from tailmatch.callbacks.writers.prediction_tables import FIELDS, Chunk, write_table
from tailmatch.command_line.predict import writers
from tailmatch.datamodules import Digits, ImageDataModule, LabeledFraction, UnlabeledImages
from tailmatch.lightning_modules import MoCoPretraining, Supervised
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.lightning_modules.pixel_network import PixelNetwork

CHUNKS: list[Chunk] = [
    {
        "key": np.array(["a/1.x.png", 'say "b", c.png']),
        "label": np.array([[1, 0], [0, 1]]),
        "confidence": np.array([[0.75, 0.25], [0.99999994, 6.5e-8]], np.float32),
        "probs": np.array([[0.25, 0.75], [0.99999994, 6.5e-8]], np.float32),
    },
    {
        "key": np.array(["ü\nz.png"]),
        "label": np.array([[1, 0]]),
        "confidence": np.array([[1 / 1.5, 1 / 3]], np.float32),
        "probs": np.array([[1 / 3, 1 / 1.5]], np.float32),
    },
]
NAMES = ["ant, red", "bee"]


def written(path: Path, *fields: Any, header: bool = True) -> str:
    columns = [column for field in fields for column in FIELDS[field](NAMES, 2)]
    write_table(path, path.suffix, columns, CHUNKS, header)
    return "" if path.suffix == ".parquet" else path.read_bytes().decode()


def test_text_by_hand(tmp_path: Path) -> None:
    assert written(tmp_path / "a.csv", "key", "label", "confidence") == (
        'key,label,confidence\na/1.x.png,bee,0.75\n"say ""b"", c.png","ant, red",1\n"ü\nz.png",bee,0.666667\n'
    )
    assert written(tmp_path / "a.tsv", "key", "label", header=False) == (
        'a/1.x.png\tbee\n"say ""b"", c.png"\tant, red\n"ü\nz.png"\tbee\n'
    )
    assert written(tmp_path / "a.txt", "label", header=False) == "bee\nant, red\nbee\n"
    assert written(tmp_path / "b.csv", "id", "class_index", "runners_up") == (
        'id,class_index,label_2,confidence_2\n1.x,1,"ant, red",0.25\n"say ""b"", c",0,bee,6.5e-08\n'
        '"ü\nz",1,"ant, red",0.333333\n'
    )
    assert (
        written(tmp_path / "c.csv", "probs") == '"probs_ant, red",probs_bee\n0.25,0.75\n1,6.5e-08\n0.333333,0.666667\n'
    )


def test_parquet_has_the_same_columns_as_text(tmp_path: Path) -> None:
    fields = list(FIELDS)
    rows = list(csv.reader(written(tmp_path / "a.csv", *fields).splitlines(keepends=True)))
    written(tmp_path / "a.parquet", *fields)
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == rows[0]
    for name, cells in zip(rows[0], zip(*rows[1:], strict=True), strict=True):
        values = table[name].to_pylist()
        if str(table[name].type) == "float":
            assert values == pytest.approx([float(cell) for cell in cells], rel=1e-5)
        else:
            assert [str(value) for value in values] == list(cells)


def predict(folder: Path, data: ImageDataModule, *callbacks: Callback, **kwargs: Any) -> Supervised:
    seed_everything(0)
    model = Supervised(num_classes=data.num_classes, network=partial(CifarResNet, depth=8))
    trainer = Trainer(
        accelerator="cpu", logger=False, default_root_dir=folder, use_distributed_sampler=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks), **kwargs,
    )  # fmt: skip
    trainer.predict(model, data, return_predictions=False)
    return model


def digits() -> Digits:
    return Digits(class_counts=LabeledFraction(0.5), eval_batch_size=64, predict_set="test")


def photos(folder: Path, *names: str, **kwargs: Any) -> UnlabeledImages:
    """A folder of random images."""
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    kwargs = {"cache_dir": str(folder / "cache"), "image_size": 8, **kwargs}
    return UnlabeledImages(str(folder / "photos"), ["class 0", "class 1", "class 2"], **kwargs)


def test_the_table_says_what_the_network_says(tmp_path: Path) -> None:
    columns = ["key", "label", "confidence", "runners_up", "probs"]
    model = predict(tmp_path, digits(), PredictionWriter(columns=columns))  # type: ignore[arg-type]
    data = model.trainer.datamodule  # type: ignore[attr-defined]
    with torch.no_grad():
        probs = model.eval()(to_float(data.test.images.pixels[data.test.rows])).softmax(dim=1).numpy()
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [int(row["key"]) for row in rows] == data.test.rows.tolist()  # places, where there are no files
    assert np.allclose([[float(row[f"probs_{k}"]) for k in range(10)] for row in rows], probs, rtol=1e-4)
    order = np.argsort(-probs, axis=1, kind="stable")[:, :5]
    for place, suffix in enumerate(["", "_2", "_3", "_4", "_5"]):
        assert [int(row[f"label{suffix}"]) for row in rows] == order[:, place].tolist()
        found = [float(row[f"confidence{suffix}"]) for row in rows]
        assert np.allclose(found, np.take_along_axis(probs, order, 1)[:, place], rtol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]  # no parts are left


def test_equal_probabilities_and_few_classes(tmp_path: Path) -> None:
    rows = PredictionWriter().rows(torch.tensor([[0.2, 0.3, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25]]))
    assert rows["label"].tolist() == [[1, 2, 0, 3], [0, 1, 2, 3]]
    predict(tmp_path, photos(tmp_path, "b.png", "a.png"), PredictionWriter(str(tmp_path / "out" / "all.csv")))
    header, *lines = (tmp_path / "out" / "all.csv").read_text().splitlines()
    assert header == "key,label,confidence,label_2,confidence_2,label_3,confidence_3"
    assert [line.split(",")[0] for line in lines] == ["a.png", "b.png"]
    predict(tmp_path, photos(tmp_path), PredictionWriter(str(tmp_path / "two.csv"), ["label", "runners_up"], top=2))
    assert (tmp_path / "two.csv").read_text().startswith("label,label_2,confidence_2\n")


def test_channel_statistics_are_those_of_the_network(tmp_path: Path) -> None:
    data, output = photos(tmp_path, "a.png", "b.png"), tmp_path / "probs.csv"
    model = Supervised(num_classes=3, network=partial(CifarResNet, depth=8))
    model.network.adapt_normalization([0.1, 0.2, 0.3], [0.9, 0.7, 0.8])  # as of other data
    trainer = Trainer(
        accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
        callbacks=[PredictionWriter(str(output), ["probs"], overwrite=True)],
    )  # fmt: skip
    checkpoint = {"state_dict": model.state_dict(), "class_names": data.class_names, "pytorch-lightning_version": "2"}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with torch.no_grad():
        expected = model.eval()(to_float(data.predicted.images.pixels[torch.arange(2)])).softmax(dim=1).numpy()
    fresh = Supervised(num_classes=3, network=partial(CifarResNet, depth=8))
    for begun, path in ((model, None), (fresh, tmp_path / "last.ckpt")):
        trainer.predict(begun, data, return_predictions=False, ckpt_path=path)
        assert begun.network.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert np.allclose(np.loadtxt(output, delimiter=",", skiprows=1), expected, rtol=1e-4)


class Interrupt(Callback):
    def on_predict_batch_end(self, *args: Any) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_prediction_leaves_nothing(tmp_path: Path) -> None:
    data = photos(tmp_path, "a.png", "b.png")
    with pytest.raises(SystemExit):
        predict(tmp_path, data, PredictionWriter(), Interrupt())
    assert not list((tmp_path / "cache").iterdir()) and not list(tmp_path.glob("*predictions*"))


@pytest.mark.filterwarnings("ignore:unreadable images are left out")  # by the second prediction too
def test_unreadable_images_have_no_row_and_never_move_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "photos" / "b.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"unreadable images are left out \(1\)"):
        predict(tmp_path, photos(tmp_path, on_bad_image="skip"), PredictionWriter(columns=["key"]))
    assert (tmp_path / "predictions.csv").read_text() == "key\na.png\nc.png\n"
    assert "2 predictions: " in (out := capsys.readouterr().out) and "(unreadable images left out: 1)" in out
    with pytest.raises(ValueError, match="a row belongs to an image by its place alone, and unreadable"):
        predict(tmp_path, photos(tmp_path, on_bad_image="skip"), PredictionWriter(str(tmp_path / "a.txt"), ["label"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": []}, r"columns are \[\]; they must be some of key, id, label"),
        ({"columns": ["key", "key"]}, "each once"),
        ({"columns": ["key", "score"]}, r"columns are \['key', 'score'\]; they must be some of"),
        ({"top": 1}, "top is 1; it must be at least 2"),
        ({"top": 3, "columns": ["key"]}, "top is 3, and columns are .*: add runners_up"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PredictionWriter(**arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("there.csv", {}, "there.csv exists: remove it, name another output, or set overwrite to true"),
        ("a.xls", {}, "a.xls; its name must end in .csv, .tsv, .txt or .parquet"),
        ("a.parquet", {"header": False}, "header is false and output is .*: Parquet always names its columns"),
    ],
)
def test_bad_outputs_are_found_before_images_are_decoded(
    name: str, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(ValueError, match=message):
        writers([PredictionWriter(str(tmp_path / name), **arguments)], digits(), tmp_path, None, False)
    with pytest.raises(ValueError, match=message):
        PredictionWriter(str(tmp_path / name), **arguments).check_output(tmp_path / name)
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_names_that_are_not_utf8_are_for_text_alone(tmp_path: Path) -> None:
    photos(tmp_path, "a.png")
    os.rename(tmp_path / "photos" / "a.png", os.fsencode(tmp_path / "photos") + b"/\xff.png")
    predict(tmp_path, photos(tmp_path), PredictionWriter(columns=["key"]))
    assert (tmp_path / "predictions.csv").read_bytes() == b"key\n\xff.png\n"
    with pytest.raises(ValueError, match=r"'\\udcff.png' is not UTF-8: rename it, or write .csv"):
        predict(tmp_path, photos(tmp_path), PredictionWriter(str(tmp_path / "a.parquet")))


def test_which_writer_a_prediction_gets(tmp_path: Path) -> None:
    def kind(data: ImageDataModule, output: str | None = None) -> type:
        [writer] = writers([], data, tmp_path, output, False)
        return type(writer)

    without_labels = photos(tmp_path, "a.png")
    assert kind(digits()) is kind(digits(), "a.npz") is PseudoLabelWriter
    assert kind(without_labels) is kind(digits(), "a.csv") is kind(digits(), "a.parquet") is PredictionWriter
    assert writers([PredictionWriter()], digits(), tmp_path, None, False) == []
    with pytest.raises(ValueError, match="output is a.csv, and the configuration has a PredictionWriter"):
        writers([PredictionWriter()], digits(), tmp_path, "a.csv", False)
    with pytest.raises(ValueError, match="overwrite is true, and the configuration has a PseudoLabelWriter"):
        writers([PseudoLabelWriter()], digits(), tmp_path, None, True)
    neither: Any = SimpleNamespace(predicted=SimpleNamespace(images=SimpleNamespace(has_files=False)))
    with pytest.raises(ValueError, match="SimpleNamespace has neither: use tailmatch.callbacks.PredictionWriter"):
        PseudoLabelWriter().check_data(neither)


def test_a_pretraining_does_not_predict(tmp_path: Path) -> None:
    model = MoCoPretraining(num_classes=3, network=PixelNetwork)
    with pytest.raises(ValueError, match="MoCoPretraining is a pre-training and has no classifier to predict with"):
        Trainer(accelerator="cpu", logger=False).predict(model, photos(tmp_path, "a.png"))
