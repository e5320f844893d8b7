"""Small files that stand for more than fits in memory, and tables and labels that point elsewhere."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tailmatch.datamodules import ImageTable, UnlabeledImages, UnlabeledTable
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files import bounds
from tailmatch.datamodules.files.table import TableFormat, read_table
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels

MEMBERS = ("key", "label", "confidence")
FACTS = {"class_names": ["a", "b"], "checkpoint": "", "fingerprint": "", "pool": 1, "format": 1}


def header(*shape: int, kind: str = "<i8") -> bytes:
    """The head of an array in an archive, without the array."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})  # type: ignore[no-untyped-call]
    return file.getvalue()


def archive(path: Path, content: bytes, packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as made:
        for name in MEMBERS:
            made.writestr(f"{name}.npy", content)
        for name, fact in FACTS.items():
            file = io.BytesIO()
            np.save(file, np.asarray(fact))
            made.writestr(f"{name}.npy", file.getvalue())
    return path


@pytest.mark.parametrize("count", [10**9, 10**12, 10**18, 10**30])
def test_an_array_that_is_not_there_is_refused(count: int, tmp_path: Path) -> None:
    path = archive(tmp_path / "labels.npz", header(count))
    with pytest.raises(SettingsError, match="labels.npz is not a pseudo-label file"):
        read_pseudo_labels(path)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "labels.npz", header(2, kind="|O") + b"\x80\x04N.")
    with pytest.raises(SettingsError, match="labels.npz is not a pseudo-label file: Object arrays cannot be loaded"):
        read_pseudo_labels(path)


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_UNPACKED", 2_000_000)
    path = archive(tmp_path / "labels.npz", header(10**5) + bytes(8 * 10**5), zipfile.ZIP_DEFLATED)
    with pytest.raises(SettingsError, match=r"labels.npz is not a pseudo-label file: it has .* would take 2,40\d,\d+"):
        read_pseudo_labels(path)


def test_a_parquet_file_of_rows_that_take_no_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_UNPACKED", 2_000_000)
    table = pyarrow.table({name: pyarrow.array(["a"] * 10**6) for name in ("image", "key")})
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(SettingsError, match=r"rows.parquet: it has .* would take 64,000,000"):
        read_table(tmp_path / "rows.parquet", TableFormat(), "image")
    with pytest.raises(SettingsError, match=r"rows.parquet is not a pseudo-label file: it has .* would take"):
        read_pseudo_labels(tmp_path / "rows.parquet")


def test_no_more_columns_are_read_than_any_table_has(tmp_path: Path) -> None:
    names = [f"c{k}" for k in range(10_001)]
    (tmp_path / "a.csv").write_text(f"{','.join(names)}\n")
    parquet.write_table(pyarrow.table({name: ["x"] for name in names}), tmp_path / "a.parquet")
    for file, message in (
        ("a.csv", "row 1 has 10,001 cells, and at most 10,000"),
        ("a.parquet", "it has 10,001 columns"),
    ):
        with pytest.raises(SettingsError, match=message):
            read_table(tmp_path / file, TableFormat(), "image")
    (tmp_path / "a.csv").write_text(f"{','.join(names[:5000])}\n")
    with pytest.raises(SettingsError, match=r"no column 'image'.* and 4980 more") as error:
        read_table(tmp_path / "a.csv", TableFormat(), "image")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("cell", ["../secret.png", "/etc/passwd", "a/../../secret.png", "{}/secret.png"])
@pytest.mark.parametrize("kind", [ImageTable, UnlabeledTable])
def test_a_table_names_no_file_outside_of_its_folder(kind: Any, cell: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    table = tmp_path / "data" / "list.csv"
    table.write_text(f"image,target\na.png,x\n{cell.format(tmp_path)},y\n")
    with pytest.raises(SettingsError, match="list.csv: row 3, column 'image': .* leaves the folder"):
        kind(str(table), **({"class_names": ["x"], "image_size": 8} if kind is UnlabeledTable else {}))


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"image": [f"images/{k}.png" for k in range(1000)]}), path)
    whole = path.read_bytes()
    for start in range(4, len(whole), 97):
        path.write_bytes(whole[:start] + bytes(40) + whole[start + 40 :])
        try:
            read_table(path, TableFormat(), "image")
        except SettingsError as error:
            assert "a.parquet" in str(error)


def test_a_link_in_a_folder_of_images_is_followed_and_read_as_an_image_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a password")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").symlink_to(tmp_path / "secret")
    data = UnlabeledImages(str(tmp_path / "photos"), ["x"], image_size=8, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(SettingsError, match=r"a.png \(no image of a known format\)"):
        data.setup("predict")
    assert "password" not in "".join(path.read_text("latin1") for path in (tmp_path / "cache").iterdir())
