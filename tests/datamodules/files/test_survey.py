"""What is said of a user's images before anything is trained on them."""

import shutil
from pathlib import Path

import pytest

from tailmatch.datamodules import ImageFolder, ImageTable
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.column_guess import Columns, guess_columns
from tailmatch.datamodules.files.survey import fewest, shorter_sides, survey
from tests.datamodules.files.test_image_folder import save


def test_a_folder_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    save(root, "train/cat", count=6)
    save(root, "train/dog", "test/dog", count=3)
    save(root, "unlabeled", count=4)
    shutil.copy(root / "train/cat/0.png", root / "train/dog/again.png")
    shutil.copy(root / "unlabeled/0.png", root / "unlabeled/again.png")
    (root / "train/cat/broken.png").write_bytes(b"x")
    data = ImageFolder(str(root), image_size=4, cache_dir=str(tmp_path / "cache"), on_bad_image="skip")
    lists = data.list_files()
    found = survey(data, lists)
    assert found.class_names == ["cat", "dog"]
    assert found.counts == {"train": [6, 4], "test": [0, 3]}
    assert found.labeled == [6, 7]
    assert (found.unlabeled, found.unreadable, found.repeated, found.contradicting) == (5, 1, 2, 1)
    assert set(found.repeats) == {"train/cat/0.png = train/dog/again.png", "unlabeled/0.png = unlabeled/again.png"}
    assert found.contradictions == ("train/cat/0.png (cat) = train/dog/again.png (dog)",)
    assert shorter_sides(data, lists).tolist() == [4] * 15  # of train/ and unlabeled/, without the broken one
    assert len(shorter_sides(data, lists, sampled=5)) == 5


def test_the_smallest_classes_come_first() -> None:
    assert fewest([9, 2, 30, 1], ["a", "b", "c", "d"], below=10) == ["d", "b", "a"]


@pytest.mark.parametrize(
    ("header", "cells", "columns"),
    [
        ("image,target", "1.png,cat", Columns("image", "target")),
        ("Label,Photo,note", "cat,a/1.jpg,x", Columns("Photo", "Label")),
        ("id,class", "17,cat", Columns("id", "class")),
    ],
)
def test_columns_are_found(header: str, cells: str, columns: Columns, tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text(f"{header}\n{cells}\n")
    assert guess_columns(table) == columns
    assert guess_columns(table, image="x", target="y") == Columns("x", "y")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,color\n1.png,red\n2.png,blue\n", r"--target_column; .* color \(2 values\)"),
        ("name,target\none,cat\n", r"no column has names of image files; its columns are name, target: .*--image_col"),
        ("image,target\n", "the table is empty"),
    ],
)
def test_columns_that_are_not_found_are_asked_for(content: str, message: str, tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text(content)
    with pytest.raises(SettingsError, match=message):
        guess_columns(table)


def test_a_table_is_counted(tmp_path: Path) -> None:
    save(tmp_path, "images", count=4)
    rows = [f"images/{number}.png,{target}" for number, target in enumerate(["cat", "dog", "dog", ""])]
    (tmp_path / "images.csv").write_text("\n".join(["image,target", *rows]))
    data = ImageTable(str(tmp_path / "images.csv"), image_size=4, cache_dir=str(tmp_path / "cache"))
    found = survey(data, data.list_files())
    assert (found.labeled, found.unlabeled) == ([1, 2], 1)
