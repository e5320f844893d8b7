import json
from pathlib import Path

import pytest

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.spark.stream_output import StreamFolder
from tests.spark.stream_rows import SETTINGS, rows, watch


def test_a_stream_is_begun_and_continued(tmp_path: Path) -> None:
    folder = StreamFolder(tmp_path / "out")
    assert not folder.open(SETTINGS) and folder.labels.is_dir()
    assert folder.open(SETTINGS)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_another_setting_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = StreamFolder(tmp_path)
    folder.open(SETTINGS)
    with pytest.raises(SettingsError, match=f"with {name} {SETTINGS[name]}, and now {name} is other"):
        folder.open({**SETTINGS, name: "other"})


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(SettingsError, match="no output of a stream"):
        StreamFolder(tmp_path).open(SETTINGS)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"format": 9, **SETTINGS})])
def test_a_damaged_or_newer_settings_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "stream.json").write_text(text)
    with pytest.raises(SettingsError, match=r"stream\.json is "):
        StreamFolder(tmp_path).open(SETTINGS)


def test_labels_without_the_checkpoint_of_spark_are_refused(tmp_path: Path) -> None:
    watch(tmp_path).take(0, rows([0], [0]))
    with pytest.raises(SettingsError, match="_checkpoint is missing"):
        watch(tmp_path)


def test_what_a_kill_left_is_removed_and_read_by_nobody(tmp_path: Path) -> None:
    seen = watch(tmp_path)
    seen.take(0, rows([0], [0]))
    (tmp_path / "_checkpoint").mkdir()
    halves = [tmp_path / "labels" / "_batch-00000001.parquet.123.partial", tmp_path / "_drift.parquet.123.partial"]
    for half in halves:
        half.write_bytes(b"PAR1")
    assert list(seen.folder.batches()) == [0]
    assert watch(tmp_path).images == 1 and not any(half.exists() for half in halves)


@pytest.mark.parametrize("damaged", ["labels/batch-00000000.parquet", "drift.parquet"])
def test_a_damaged_file_is_named(tmp_path: Path, damaged: str) -> None:
    watch(tmp_path).take(0, rows([0], [0]))
    (tmp_path / "_checkpoint").mkdir()
    (tmp_path / damaged).write_bytes(b"PAR1 and no more")
    with pytest.raises(SettingsError, match=f"{damaged.rpartition('/')[2]} is damaged"):
        watch(tmp_path)
