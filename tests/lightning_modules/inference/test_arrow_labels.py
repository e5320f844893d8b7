"""The worker that labels Arrow batches: the bits of the network, and a row for every image."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.decoding import decode_image
from tailmatch.datamodules.files.pixels import fitted_pixels
from tailmatch.lightning_modules.inference import arrow_labels
from tailmatch.lightning_modules.inference.arrow_labels import (
    Wanted,
    WorkerModel,
    label_batches,
    loaded_once,
    output_schema,
)
from tailmatch.lightning_modules.inference.export import exported, facts_of, write_program
from tailmatch.lightning_modules.networks import CategoryNetwork, CifarResNet, Network, WideResNet
from tests.trained_files import NAMES, shaken

SIZE = (8, 8)
PLAIN = Wanted()


def program(network: Network, file: Path, size: tuple[int, int] = SIZE) -> Path:
    write_program(exported(network, size), facts_of(NAMES, size, network), file)
    return file


def picture(number: int, width: int = 10) -> bytes:
    values = np.random.default_rng(number).integers(0, 256, (11, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def batch(contents: list[bytes | None], **more: list[str | None]) -> pa.RecordBatch:
    return pa.record_batch({"key": [f"{n}.png" for n in range(len(contents))], "content": contents, **more})


def table(*batches: pa.RecordBatch, model: WorkerModel, wanted: Wanted = PLAIN) -> pa.Table:
    found = list(label_batches(batches, model, wanted))
    assert all(part.schema == output_schema(wanted) for part in found)
    return pa.Table.from_batches(found)


@pytest.fixture(scope="module")
def network() -> Network:
    made: Any = shaken(CifarResNet(3, depth=8))
    pixels = torch.stack([decode_image(picture(number), 8) for number in range(16)])
    with torch.no_grad():
        made.head.bias -= made(pixels.float() / 255).mean(dim=0)  # so that images differ in their class
    return made


@pytest.fixture(scope="module")
def model(network: Network, tmp_path_factory: pytest.TempPathFactory) -> WorkerModel:
    return WorkerModel.load(program(network, tmp_path_factory.mktemp("program") / "a.pt2"))


def test_rows_are_those_of_the_network_to_the_bit(network: Network, model: WorkerModel) -> None:
    contents = [picture(n) for n in range(11)]
    found = table(batch(contents), model=model, wanted=Wanted(batch_size=4, probs=True, top=2))
    pixels = torch.stack([decode_image(content, 8) for content in contents])
    with torch.no_grad():
        probs = torch.cat([network(part.float() / 255).softmax(dim=1) for part in pixels.split(4)])
    assert np.array_equal(np.array(found["probs"].to_pylist(), np.float32), probs.numpy())
    assert found["label"].to_pylist() == probs.argmax(dim=1).tolist() and len(set(found["label"].to_pylist())) > 1
    assert np.array_equal(found["confidence"].to_numpy(), probs.amax(dim=1).numpy())
    assert found["key"].to_pylist() == [f"{n}.png" for n in range(11)]
    assert found["size"].to_pylist() == [len(content) for content in contents]
    assert found["digest"].to_pylist() == [hashlib.blake2b(data, digest_size=16).digest() for data in contents]
    ranked = probs.sort(dim=1, descending=True)
    assert found["top_label"].to_pylist() == ranked.indices[:, :2].tolist()
    assert found["top_confidence"].to_pylist() == ranked.values[:, :2].tolist()
    assert found["error"].null_count == 11


def test_blocks_do_not_depend_on_how_the_batches_are_cut(model: WorkerModel) -> None:
    whole = batch([picture(n) for n in range(9)])
    wanted = Wanted(batch_size=4, probs=True)
    at_once = table(whole, model=model, wanted=wanted)
    for size in (1, 3, 5):
        cut = [whole.slice(start, size) for start in range(0, 9, size)]
        assert table(*cut, model=model, wanted=wanted).equals(at_once)
    assert [len(part) for part in label_batches([whole.slice(0, 0), whole], model, wanted)] == [4, 4, 1]
    assert list(label_batches([whole.slice(0, 0)], model, wanted)) == []


def test_files_are_read_by_their_paths(model: WorkerModel, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    rows = pa.record_batch({"key": ["a", "b"], "path": [str(tmp_path / "a.png"), str(tmp_path / "b.png")]})
    found = table(rows, model=model)
    assert found["label"].to_pylist()[0] >= 0
    assert found.slice(1).to_pylist() == [
        {"key": "b", "size": None, "digest": None, "label": -1, "confidence": 0.0, "error": "there is no such file"}
    ]


def test_an_image_that_cannot_be_read_is_a_row_with_an_error(
    model: WorkerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow_labels, "MOST_BYTES", 2000)
    good = picture(0)
    contents = [good, b"", b"text", good[:200], None, picture(1, width=100), good]
    rows = batch(contents).set_column(0, "key", pa.array(["a", "b", "c", "d", "e", "f", None]))
    wanted = Wanted(probs=True, top=1)
    found = table(rows, model=model, wanted=wanted)
    alone = table(batch([good]), model=model, wanted=wanted)
    errors = found["error"].to_pylist()
    assert errors[0] is None and errors[1:3] == ["empty", "no image of a known format"] and "truncated" in errors[3]
    assert errors[4] == "no content" and "more than an image file has" in errors[5] and errors[6] == "no key"
    assert found["label"].to_pylist()[1:] == [-1] * 6 and found["confidence"].to_pylist()[1:] == [0.0] * 6
    assert found["probs"].to_pylist()[1:] == [None] * 6 == found["top_label"].to_pylist()[1:]
    for name in ("label", "confidence", "probs", "top_label", "top_confidence"):
        assert found[name][0].as_py() == alone[name][0].as_py()


def test_a_prediction_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    network: Any = shaken(CifarResNet(3, depth=8))
    network.head.bias.data.fill_(float("nan"))
    model = WorkerModel.load(program(network, tmp_path / "a.pt2"))
    assert table(batch([picture(0)]), model=model)["error"].to_pylist() == ["its prediction is not finite"]


def test_the_size_of_the_images_is_that_of_the_program(tmp_path: Path) -> None:
    network: Any = shaken(WideResNet(3, depth=10, widen=1))
    model = WorkerModel.load(program(network, tmp_path / "a.pt2", (8, 12)))
    (tmp_path / "a.png").write_bytes(picture(0))
    with torch.no_grad():
        probs = network(fitted_pixels(tmp_path / "a.png", 8, 12)[None].float() / 255).softmax(dim=1)
    found = table(batch([picture(0)]), model=model, wanted=Wanted(probs=True))
    assert np.array_equal(np.array(found["probs"].to_pylist(), np.float32), probs.numpy())


def test_categories_are_columns(tmp_path: Path) -> None:
    network = CategoryNetwork(3, ["color", "shape"], lambda classes: CifarResNet(classes, depth=8))
    levels = {"color": ["blue", "red"], "shape": ["round"]}
    network.adapt_categories(levels, training=torch.tensor([[0, 0], [1, 0]]))
    shaken(network)
    with torch.no_grad():
        network.category_embeddings.table.normal_()
    model = WorkerModel.load(program(network, tmp_path / "a.pt2"))
    assert model.categories == levels
    contents = [picture(0)] * 4
    rows = batch(contents, color=["red", "blue", "green", None])  # no column of the other level
    found = table(rows, model=model, wanted=Wanted(probs=True))
    codes = torch.tensor([[1, -1], [0, -1], [-1, -1], [-1, -1]])
    pixels = torch.stack([decode_image(content, 8) for content in contents])
    with torch.no_grad():
        probs = network(network.with_categories(pixels.float() / 255, codes)).softmax(dim=1)
    assert np.array_equal(np.array(found["probs"].to_pylist(), np.float32), probs.numpy())
    assert not torch.equal(probs[0], probs[1]) and not torch.equal(probs[0], probs[2])


def test_a_process_has_one_model(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_labels, "_LOADED", {})
    content = program(network, tmp_path / "a.pt2").read_bytes()
    reads: list[str] = []

    def read(name: str) -> Callable[[], bytes]:
        return lambda: (reads.append(name), content)[1]

    first = loaded_once("a", read("a"))
    assert loaded_once("a", read("a")) is first and reads == ["a"]
    assert loaded_once("b", read("b")) is not first and reads == ["a", "b"] and len(arrow_labels._LOADED) == 1


@pytest.mark.parametrize(
    ("columns", "says"), [({"content": [b""]}, "key"), ({"key": ["a"]}, "content or path"), ({"a": [1]}, "content")]
)
def test_columns_that_are_missing_are_named(columns: dict[str, Any], says: str, model: WorkerModel) -> None:
    with pytest.raises(SettingsError, match=says):
        table(pa.record_batch(columns), model=model)


def test_another_file_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(b"text")
    with pytest.raises(SettingsError, match="a.pt2 is no program of torch.export"):
        WorkerModel.load(tmp_path / "a.pt2")
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(2, 2),)), tmp_path / "b.pt2")
    with pytest.raises(SettingsError, match="b.pt2 has no class_names and no image_size: it must be made by"):
        WorkerModel.load(tmp_path / "b.pt2")
