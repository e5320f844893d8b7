"""Which images a folder, a table or Parquet files have; without Spark."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.spark.images import ImageSource, listed


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_folder_is_listed_as_for_predict(tmp_path: Path) -> None:
    names = ("b/1.png", "a.JPG", "_c/é.webp", ".d.png", ".e/1.png", "text.txt")
    found = listed(ImageSource(str(touched(tmp_path, *names))), [])
    assert found is not None and found.root == tmp_path and list(found.keys) == ["_c/é.webp", "a.JPG", "b/1.png"]


def test_a_table_has_paths_and_categories(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,color,size\nx/1,red,3\n2,,4\n")
    source = ImageSource(str(tmp_path / "a.csv"), "file", str(tmp_path / "photos"), ".jpg")
    found = listed(source, ["color", "shape"])
    assert found is not None and found.root == tmp_path / "photos"
    assert found.keys == ["x/1.jpg", "2.jpg"] and found.levels == {"color": ["red", ""]}


def test_parquet_with_content_is_packed_and_without_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    parquet.write_table(pa.table({"key": ["a"], "content": [b""]}), tmp_path / "packed" / "0.parquet")
    parquet.write_table(pa.table({"image": ["a.png"]}), tmp_path / "a.parquet")
    assert listed(ImageSource(str(tmp_path / "packed")), []) is None
    assert listed(ImageSource(str(tmp_path / "packed" / "0.parquet")), []) is None
    assert listed(ImageSource("s3a://bucket/images"), []) is None
    found = listed(ImageSource(str(tmp_path / "a.parquet")), [])
    assert found is not None and found.keys == ["a.png"]


def test_what_has_no_images_is_refused(tmp_path: Path) -> None:
    touched(tmp_path, "text/a.txt", "photo.jpg", "hidden/.part.parquet", "b.parquet")
    (tmp_path / "a.csv").write_text("image\na.png\n")
    for images, says in (
        ("nowhere", "no folder, table or Parquet file"),
        ("text", "has no images in it"),
        ("hidden", "has no images in it"),
        ("photo.jpg", "must be a folder or a table"),
        ("b.parquet", "b.parquet is no Parquet file"),
    ):
        with pytest.raises(SettingsError, match=says):
            listed(ImageSource(str(tmp_path / images)), [])
    with pytest.raises(MissingFileError):
        listed(ImageSource(str(tmp_path / "nowhere")), [])
    with pytest.raises(SettingsError, match="no column 'path'"):
        listed(ImageSource(str(tmp_path / "a.csv"), "path"), [])
    with pytest.raises(SettingsError, match="root is 'x', and .* is no table"):
        listed(ImageSource(str(tmp_path / "text"), root="x"), [])


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    touched(tmp_path, "\udcff.png")
    with pytest.raises(SettingsError, match=r"udcff.png' is not UTF-8"):
        listed(ImageSource(str(tmp_path)), [])
