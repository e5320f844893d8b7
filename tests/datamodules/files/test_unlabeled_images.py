"""Images without labels: which there are and in which order, what is left on the disk, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer

from tailmatch.datamodules import UnlabeledImages, UnlabeledTable
from tailmatch.datamodules.files.decoding import decode_image

NAMES = ["ant", "bee"]
FILES = ["b/2.png", "a.png", "b/1.PNG", "a/9.png"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for place, name in enumerate(FILES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (place * 40, 10, 200)).save(folder / name, "png")
    (folder / "notes.txt").write_text("no image")
    return folder


def opened(folder: Path, **options: Any) -> UnlabeledImages:
    """Its images, of two classes, at four pixels."""
    options = {"class_names": NAMES, "image_size": 4, "cache_dir": str(folder.parent / "cache"), **options}
    return UnlabeledImages(str(folder), **options)


def table(folder: Path, text: str, **options: Any) -> UnlabeledTable:
    (folder / "list.csv").write_text(text)
    options = {"class_names": NAMES, "image_size": 4, "cache_dir": str(folder.parent / "cache"), **options}
    return UnlabeledTable(str(folder / "list.csv"), **options)


def test_a_folder_has_all_its_images_in_the_order_of_their_paths(photos: Path) -> None:
    rows = opened(photos, eval_batch_size=3).predicted
    assert rows.images.keys == ("a/9.png", "a.png", "b/1.PNG", "b/2.png")
    expected = torch.stack([decode_image((photos / key).read_bytes(), 4) for key in rows.images.keys])
    assert torch.equal(rows.images.pixels[torch.arange(4)], expected)
    batches = list(opened(photos, eval_batch_size=3).predict_dataloader())
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [3]]
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), expected)
    assert all("target" not in batch for batch in batches)


def test_a_table_gives_order_and_categories(photos: Path) -> None:
    text = "image,target,color\nb/2.png,ant,red\na.png,,\nb/1.PNG,bee,blue\n"
    data = table(photos, text, category_columns=["color"])
    assert data.predicted.images.keys == ("b/2.png", "a.png", "b/1.PNG")
    [batch] = list(data.predict_dataloader())
    assert batch["categories"].tolist() == [[1], [-1], [0]] and data.category_values == {"color": ["blue", "red"]}
    assert "target" not in batch and data.class_counts is None
    found = table(photos, text, levels=["shape", "color"])
    assert found.category_values == data.category_values  # a level that the table lacks is left out
    assert table(photos, text, levels=["color"], category_columns=[]).category_values == {}


class Nothing(LightningModule):
    """Predicts nothing."""

    def __init__(self, error: bool = False) -> None:
        super().__init__()
        self.error = error

    def predict_step(self, *args: Any) -> None:
        if self.error:
            raise KeyboardInterrupt


def predict(data: UnlabeledImages, error: bool = False) -> None:
    Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    ).predict(Nothing(error), data, return_predictions=False)  # fmt: skip


def left(folder: Path) -> list[str]:
    return sorted(path.suffix for path in (folder.parent / "cache").iterdir())


def test_the_cache_is_removed_unless_it_is_to_be_kept(photos: Path) -> None:
    predict(opened(photos))
    assert left(photos) == []
    with pytest.raises(SystemExit):  # what Lightning makes of Ctrl-C
        predict(opened(photos), error=True)
    assert left(photos) == []
    predict(opened(photos, cache_budget_gb=0, num_workers=1))
    assert left(photos) == []
    predict(opened(photos, keep_cache=True))
    kept = left(photos)
    assert {".npz", ".uint8"} <= set(kept)
    predict(opened(photos))  # another one's cache is used, and stays
    assert left(photos) == kept


def test_unreadable_images_are_an_error_or_left_out_by_name(photos: Path) -> None:
    (photos / "b/1.PNG").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"unreadable images \(1\).*\n.*b/1.PNG"):
        predict(opened(photos))
    assert left(photos) in ([], [".lock"])
    with pytest.warns(UserWarning, match=r"unreadable images are left out \(1\):\n.*b/1.PNG"):
        data = opened(photos, on_bad_image="skip")
        assert data.left_out() == ["b/1.PNG"]
    assert data.predicted.images.keys == ("a/9.png", "a.png", "b/2.png")
    with pytest.raises(ValueError, match=r"list.csv: row 3, column 'image': b/1.PNG"):
        table(photos, "image\na.png\nb/1.PNG\n").setup("predict")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": None}, "class_names is null: give it"),
        ({"image_size": None}, "image_size is null: give it"),
        ({"image_size": 0}, "image_size is 0"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
        ({"on_bad_image": "ignore"}, "on_bad_image is 'ignore'"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str, photos: Path) -> None:
    with pytest.raises(ValueError, match=message):
        opened(photos, **options)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        opened(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no images in it"):
        opened(tmp_path / "empty")


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_it_is_for_predict_alone(stage: str, photos: Path) -> None:
    with pytest.raises(ValueError, match=f"images without labels, and {stage} needs labels: it is for predict alone"):
        opened(photos).setup(stage)
