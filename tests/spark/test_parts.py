"""What a folder of pseudo-labels may replace."""

from pathlib import Path

import pytest

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels.parquet import SIDECAR
from tailmatch.spark.parts import check_folder, literal


def test_only_a_folder_of_pseudo_labels_is_replaced(tmp_path: Path) -> None:
    check_folder(str(tmp_path / "new"), overwrite=False)
    check_folder(str(tmp_path), overwrite=True)  # an empty one
    (tmp_path / "a.jpg").write_bytes(b"an image")
    with pytest.raises(SettingsError, match="a folder of other files than pseudo-labels, and it is not replaced"):
        check_folder(str(tmp_path), overwrite=True)
    (tmp_path / SIDECAR).write_text("{}")
    check_folder(str(tmp_path), overwrite=True)
    with pytest.raises(SettingsError, match="exists: remove it"):
        check_folder(str(tmp_path), overwrite=False)


def test_letters_of_patterns_are_quoted() -> None:
    assert literal("/a b/[1]*{x,y}?^") == "/a b/\\[1\\]\\*\\{x,y\\}\\?\\^"
