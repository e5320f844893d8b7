"""Folders of images as people have them: what is used, and what is said of the rest."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tailmatch.datamodules import ImageFolder, LabeledFraction, UnlabeledImages
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.decoding import IMAGE_SUFFIXES
from tailmatch.datamodules.files.listing import LeftOut, image_files

RANDOM = np.random.default_rng(0)


def save(root: Path, *names: str, count: int = 10) -> None:
    """Write images into some folders."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = RANDOM.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def opened(root: Path, **options: Any) -> tuple[dict[str, list[int]], int, list[str]]:
    """The class counts, the number of unlabeled images, and the warnings but that of no validation images."""
    fractions = {"class_counts": LabeledFraction(0.5), "image_size": 4, "cache_dir": f"{root}.cache", **options}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = ImageFolder(str(root), **fractions)
        data.setup("fit")
    messages = [str(warning.message) for warning in said]
    shown = [message for message in messages if not message.startswith("no validation images")]
    return data.class_count_table(), len(data.unlabeled), shown


def without_train(root: Path) -> None:
    save(root, "cat", "dog", "unlabeled")
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").touch()
    (root / "readme.md").touch()


def other_names(root: Path) -> None:
    save(root, "Training/cat", "Training/dog", "valid/dog", "Testing/cat", "unlabelled/deep")


def unlabeled_test(root: Path) -> None:
    save(root, "train/cat", "train/dog", "test")


def hidden(root: Path) -> None:
    save(root, "train/cat", "train/dog", "train/.ipynb_checkpoints", "train/cat/.thumbnails", "train/__MACOSX", ".old")
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "train" / "cat" / name).write_bytes(b"x")


def remains(root: Path) -> None:
    save(root, "train/cat", "train/dog", "more/deep", "../elsewhere")
    save(root, "train", count=3)
    for name in ("a.heic", "b.HEIC", "c.txt", "d"):
        (root / "train" / "dog" / name).touch()
    (root / "train" / "cat" / "linked").symlink_to(root.parent / "elsewhere")
    (root / "train" / "cat" / "gone").symlink_to(root / "nowhere")
    (root / "train" / "labels.csv").touch()


def linked(root: Path) -> None:
    save(root, "train/cat/deep", "../elsewhere")
    (root / "train" / "dog").symlink_to(root.parent / "elsewhere")


HALF = {"labeled": [5, 5], "unlabeled": [5, 5]}


@pytest.mark.parametrize(
    ("make", "counts", "unlabeled", "said"),
    [
        (
            without_train,
            {"labeled": [4, 4], "unlabeled": [3, 3], "validation": [1, 1], "test": [2, 2]},
            16,
            [
                "has no folder train, so its 2 folders with images are the classes; of each, val_holdout 0.1 and",
                "left out are files of other kinds: 1 (.md 1); folders without images: 1 (notes)",
            ],
        ),
        (other_names, {**HALF, "validation": [0, 10], "test": [10, 0]}, 20, []),
        (unlabeled_test, HALF, 10, ["test has 10 images and no class folders, so their classes are unknown and it is"]),
        (hidden, HALF, 10, []),
        (linked, HALF, 10, []),
        (
            remains,
            HALF,
            10,
            [
                "left out are files of other kinds: 5 (.heic 2, no suffix 1, .csv 1, .txt 1); images outside of the "
                "class folders: 3 in {root}/train; links to folders or to nothing: 2 (train/cat/gone, "
                "train/cat/linked); other folders of images: 1 (more)"
            ],
        ),
    ],
)
def test_layouts(
    make: Callable[[Path], None], counts: dict[str, list[int]], unlabeled: int, said: Sequence[str], tmp_path: Path
) -> None:
    root = tmp_path / "images"
    make(root)
    table, found, messages = opened(root)
    assert (table, found) == (counts, unlabeled)
    assert len(messages) == len(said), messages
    for message, text in zip(messages, said, strict=True):
        assert text.replace("{root}", str(root)) in message and "\n" not in message


def test_holdouts_of_a_folder_without_train_may_be_given(tmp_path: Path) -> None:
    without_train(tmp_path / "images")
    table, *_ = opened(tmp_path / "images", val_holdout=3, test_holdout=0)
    assert table == {"labeled": [4, 4], "unlabeled": [3, 3], "validation": [3, 3]}


@pytest.mark.parametrize(
    ("folders", "inside", "message"),
    [
        (["data/train/cat", "data/train/dog"], ".", "(is {root}/data meant, which has a folder train?)"),
        (["a/b/train/cat", "a/b/train/dog"], ".", "(is {root}/a/b meant, which has a folder train?)"),
        (["train/cat", "train/dog"], "train", "{root}/train is the folder train of a data set: give {root}"),
        (
            ["train"],
            ".",
            "no class folders in {root}/train, and {root}/train has images outside of the class folders: 1 in",
        ),
        (
            [""],
            ".",
            "no class folders in {root}/train, and {root} has images outside of the class folders: 1 in {root}: put",
        ),
        (["cat"], ".", "no class folders in {root}/train, and {root} has the folders cat: put"),
        (["val/cat", "val/dog"], ".", "no class folders in {root}/train, and {root} has the folders val: put"),
        (["train/cat", "train/dog", "val/cat", "Valid/cat"], ".", "the folders ['Valid', 'val'], which are both for"),
    ],
)
def test_a_layout_that_is_none_says_what_there_is(
    folders: list[str], inside: str, message: str, tmp_path: Path
) -> None:
    save(tmp_path, *folders, count=1)
    with pytest.raises(SettingsError) as error:
        opened(tmp_path / inside)
    assert message.replace("{root}", str(tmp_path)) in str(error.value)


def test_images_are_known_by_any_suffix_that_is_read(tmp_path: Path) -> None:
    names = sorted(f"a{suffix}" for suffix in IMAGE_SUFFIXES) + ["b.JPG"]
    for name in [*names, "c.svg"]:
        (tmp_path / name).touch()
    left_out = LeftOut()
    assert image_files(tmp_path, "", left_out) == names
    assert {".jfif", ".pgm"} <= IMAGE_SUFFIXES and str(left_out) == "files of other kinds: 1 (.svg 1)"
    with pytest.warns(UserWarning, match=r"left out are files of other kinds: 1 \(\.svg 1\)$"):
        image_files(tmp_path, "")


def test_a_long_list_of_what_is_left_out_is_cut(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"a.x{number}").touch()
        (tmp_path / f"link{number}").symlink_to(tmp_path)
    left_out = LeftOut()
    assert image_files(tmp_path, "", left_out) == []
    assert "files of other kinds: 7 (.x0 1," in str(
        left_out
    ) and ".x4 1, others); links to folders or to nothing: 7" in str(left_out)
    assert str(left_out).endswith("(link0, link1, link2, link3, link4 and 2 more)")


def test_one_image_is_predicted(tmp_path: Path) -> None:
    save(tmp_path, "photos", count=2)
    options: dict[str, Any] = {"class_names": ["cat", "dog"], "image_size": 4, "cache_dir": str(tmp_path / "cache")}
    data = UnlabeledImages(str(tmp_path / "photos" / "1.png"), **options)
    assert data.predicted.images.keys == ("1.png",) and data.left_out() == []
    (tmp_path / "list.CSV").write_text("image\n")
    with pytest.raises(SettingsError, match=r"list.CSV is a table: use UnlabeledTable"):
        UnlabeledImages(str(tmp_path / "list.CSV"), **options)
