"""Labels on Spark are those of `tailmatch predict`, in a folder that is whole and that readers take."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from pytorch_lightning import Trainer

import tailmatch
from tailmatch.callbacks import PseudoLabelWriter
from tailmatch.command_line.label import summary
from tailmatch.datamodules import UnlabeledImages, UnlabeledTable
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parts import PseudoLabelParts
from tailmatch.datamodules.public.digits import Digits
from tailmatch.lightning_modules.networks import CategoryNetwork, CifarResNet
from tailmatch.spark.label import label_images
from tests.trained_files import shaken, trained_file

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

NAMES = [str(digit) for digit in range(10)]
NUMBER = 600
"""Images: two whole blocks of a prediction, and a part of one."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    images = Digits().load().train.pixels[:NUMBER]
    for number, pixels in enumerate(images):
        file = folder / str(number % 3) / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)
    return folder


@pytest.fixture(scope="module")
def checkpoint(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    network = shaken(CifarResNet(10, depth=8))
    return completed(trained_file(tmp_path_factory.mktemp("run") / "a.ckpt", network, {"depth": 8}, NAMES))


def completed(path: str, **more: object) -> str:
    """Give a checkpoint what a method needs besides its network."""
    content = torch.load(path, weights_only=True)
    content["state_dict"]["class_counts"] = torch.zeros(10, dtype=torch.long)
    torch.save(content | more, path)
    return path


def predicted(data: UnlabeledImages, checkpoint: str, output: Path) -> PseudoLabelFile:
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[PseudoLabelWriter(str(output), probs=True)],
        enable_progress_bar=False, enable_model_summary=False, barebones=False,
    )  # fmt: skip
    trainer.predict(tailmatch.load(checkpoint), data, return_predictions=False)
    return read_pseudo_labels(output)


def rows(folder: Path) -> dict[str, np.ndarray]:
    """The rows of a folder in the order of their keys."""
    chunks = [chunk.arrays() for chunk in PseudoLabelParts.open(folder).chunks()]
    joined = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    order = np.argsort(joined["key"].astype(str))
    return {name: array[order] for name, array in joined.items()}


def assert_same(folder: Path, file: PseudoLabelFile) -> None:
    found, order = rows(folder), np.argsort(file.key.astype(str))
    assert set(found) == set(file.arrays())
    for name, array in file.arrays().items():
        assert np.array_equal(found[name].astype(array.dtype), array[order]), name
    assert PseudoLabelParts.open(folder).origin.class_names == file.origin.class_names


def test_a_folder_gets_the_labels_of_predict(
    spark: "SparkSession", digits: Path, checkpoint: str, tmp_path: Path
) -> None:
    file = predicted(UnlabeledImages(str(digits), NAMES, image_size=8), checkpoint, tmp_path / "a.npz")
    done = label_images(str(digits), checkpoint, str(tmp_path / "labels"), probs=True, session=spark)
    assert (done.images, done.bad, done.examples) == (NUMBER, 0, [])
    assert_same(tmp_path / "labels", file)
    assert len(list((tmp_path / "labels").glob("*.parquet"))) == 3  # a task for each block, and none that is empty
    first = PseudoLabelParts.open(tmp_path / "labels")
    assert [key for chunk in first.chunks() for key in chunk.key] == file.key.tolist()  # in the order of predict
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "labels"]


def test_packed_images_get_the_same_labels(
    spark: "SparkSession", digits: Path, checkpoint: str, tmp_path: Path
) -> None:
    keys = sorted(str(path.relative_to(digits)) for path in digits.rglob("*.png"))[:300]
    packed = pa.table({"path": keys, "content": [(digits / key).read_bytes() for key in keys], "more": keys})
    (tmp_path / "packed").mkdir()
    parquet.write_table(packed.slice(0, 200), tmp_path / "packed" / "0.parquet")
    parquet.write_table(packed.slice(200), tmp_path / "packed" / "1.parquet")
    table = tmp_path / "a.csv"
    table.write_text("\n".join(["image", *keys]))
    data = UnlabeledTable(str(table), str(digits), class_names=NAMES, image_size=8)
    file = predicted(data, checkpoint, tmp_path / "a.npz")
    for images, more in ((tmp_path / "packed", {}), (f"file://{tmp_path}/packed", {}), (table, {"root": str(digits)})):
        label_images(
            str(images), checkpoint, str(tmp_path / "labels"), probs=True, overwrite=True, session=spark, **more
        )
        assert_same(tmp_path / "labels", file)
    parquet.write_table(pa.table({"key": [1], "content": [b""]}), tmp_path / "c.parquet")
    with pytest.raises(SettingsError, match="need a column key or path of strings, and a column content of bytes"):
        label_images(str(tmp_path / "c.parquet"), checkpoint, str(tmp_path / "new"), session=spark)
    assert not (tmp_path / "new").exists()


def test_broken_images_are_rows_with_an_error_up_to_a_share(
    spark: "SparkSession", digits: Path, checkpoint: str, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted(digits.rglob("*.png"))[:20]:
        os.link(path, images / path.name)
    for name in ("broken.png", "other.png"):
        (images / name).write_bytes(b"text")
    with pytest.raises(
        SettingsError, match="2 of 22 images cannot be labeled.*max_bad_share 0.05.*broken.png .no image"
    ):
        label_images(str(images), checkpoint, str(tmp_path / "labels"), max_bad_share=0.05, session=spark)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    done = label_images(str(images), checkpoint, str(tmp_path / "labels"), top=3, max_bad_share=0.1, session=spark)
    assert done.bad == 2 and "2 of them have an error instead of a label: broken.png" in summary(done, "labels")
    read = spark.read.parquet(str(tmp_path / "labels")).where("error is not null").collect()
    assert [(row.key, row.label, row.confidence) for row in read] == [("broken.png", -1, 0.0), ("other.png", -1, 0.0)]
    assert len(spark.read.parquet(str(tmp_path / "labels")).where("error is null").first().top_label) == 3
    with pytest.warns(UserWarning, match="2 of 22 rows of .*labels have an error instead of a label"):
        assert len(rows(tmp_path / "labels")["key"]) == 20


def test_categories_of_a_table_reach_the_network(spark: "SparkSession", digits: Path, tmp_path: Path) -> None:
    keys = [f"0/{number}.png" for number in range(0, 30, 3)]
    table = tmp_path / "a.csv"
    table.write_text(
        "image,color\n" + "".join(f"{key},{('red', 'blue', 'pink', '')[n % 4]}\n" for n, key in enumerate(keys))
    )
    network = CategoryNetwork(10, ["color"], lambda classes: CifarResNet(classes, depth=8))
    network.adapt_categories({"color": ["blue", "red"]}, training=torch.tensor([[0], [1]]))
    shaken(network)
    with torch.no_grad():
        network.category_embeddings.table.normal_()
    part = {"class_path": "tailmatch.lightning_modules.networks.CifarResNet", "init_args": {"depth": 8}}
    path = trained_file(tmp_path / "a.ckpt", network, {"levels": ["color"], "network": part}, NAMES)
    completed(path, categories=network.vocabulary)
    data = UnlabeledTable(str(table), str(digits), levels=["color"], class_names=NAMES, image_size=8)
    file = predicted(data, path, tmp_path / "a.npz")
    label_images(str(table), path, str(tmp_path / "labels"), root=str(digits), probs=True, session=spark)
    assert_same(tmp_path / "labels", file)


def test_an_output_is_whole_and_not_replaced_by_accident(
    spark: "SparkSession", digits: Path, checkpoint: str, tmp_path: Path
) -> None:
    output = tmp_path / "lab[e]ls"
    killed = tmp_path / f"lab[e]ls.{'0' * 32}.partial"
    replaced = tmp_path / f"lab[e]ls.{'1' * 32}.replaced"
    others = tmp_path / f"labels.{'0' * 32}.partial"
    for folder in (killed, replaced, others):
        folder.mkdir()
        (folder / "part.parquet").write_bytes(b"before")
    images = str(digits / "0")
    with pytest.raises(SettingsError, match="exists: remove it"):  # that which a killed command was about to replace
        label_images(images, checkpoint, str(output), session=spark)
    assert (output / "part.parquet").read_bytes() == b"before" and not killed.exists() and not replaced.exists()
    with pytest.raises(SettingsError, match="exists: remove it"):  # before any work
        label_images(images, "no.ckpt", str(output), session=spark)
    label_images(images, checkpoint, str(output), overwrite=True, session=spark)
    assert len(rows(output)["key"]) == 200 and not (output / "part.parquet").exists()
    assert {path.name for path in tmp_path.iterdir()} == {output.name, others.name}
