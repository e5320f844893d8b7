"""Outputs are whole or absent, on the disk before they have their name, and errors of the disk name a file."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from lightning_utilities.core.rank_zero import rank_zero_only

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import (
    check_apart,
    check_free,
    check_writable,
    naming,
    stale_partials,
    whole_file,
    write_json,
)
from tests.forks import die, exit_code, fork


def test_a_kill_leaves_the_former_file_and_the_temporary_one(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", "former")

    def killed() -> None:
        with whole_file(tmp_path / "a.json") as partial:
            partial.write_text("ha")
            die()

    child = fork(killed)
    assert exit_code(child) == -9
    assert (tmp_path / "a.json").read_text() == '"former"\n'
    partial = tmp_path / f"a.json.{child}.partial"
    assert list(stale_partials(tmp_path)) == [(partial, tmp_path / "a.json")]


def test_json_is_readable_and_utf_8_whatever_the_names(tmp_path: Path) -> None:
    names = {"모자": 1, os.fsdecode(b"caf\xe9"): 2}
    write_json(tmp_path / "a.json", names)
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert '"모자": 1' in text and json.loads(text) == names


def test_only_temporary_files_of_this_kind_are_stale(tmp_path: Path) -> None:
    for name in ("a.partial", "a.ckpt.partial", "a.ckpt.12x.partial", ".12.partial", "a.ckpt.12.partial.ckpt", "12"):
        (tmp_path / name).touch()
    (tmp_path / "folder.ckpt.12.partial").mkdir()
    assert list(stale_partials(tmp_path)) == []


def test_the_file_is_on_the_disk_before_it_has_its_name_and_then_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "a.txt", []
    sync, replace = os.fsync, os.replace

    def syncing(descriptor: int) -> None:
        sync(descriptor)
        seen.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    def replacing(source: Path, target: Path) -> None:
        replace(source, target)
        seen.append(f"renamed to {target}")

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", replacing)
    write_json(path, {})
    assert seen == [f"{path}.{os.getpid()}.partial", f"renamed to {path}", str(tmp_path)]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_folder_need_not_be_able_to_sync(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir():
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 1\n}\n'


def test_a_disk_that_is_full_at_the_end_leaves_the_former_file_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "a.json", "former")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.json"):
        write_json(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == '"former"\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


class FullDisk:
    """A file on a disk that has room for some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("room", [0, 1000, 10_000])
def test_a_full_disk_names_the_file_also_within_torch(room: int, tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="No space left on device: .*weights.ckpt'") as caught,
        naming(tmp_path / "weights.ckpt"),
    ):
        torch.save({"a": torch.zeros(5000)}, FullDisk(room))
    assert caught.value.errno == errno.ENOSPC


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    for error in (refused, RuntimeError("a slip"), OSError("without a number")):
        with pytest.raises(type(error)) as caught, naming(tmp_path / "file"):
            raise error
        assert caught.value is error and getattr(error, "filename", None) is None


def test_a_failed_write_leaves_the_former_file_and_names_it(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    file.write_text("good")
    with pytest.raises(OSError) as caught, whole_file(file) as partial:
        partial.write_text("half")
        raise OSError(errno.EIO, "Input/output error", str(partial))
    assert caught.value.filename == str(file)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"] and file.read_text() == "good"


@pytest.mark.parametrize("name", ["new/folder/out.csv", "out.csv"])
def test_the_check_of_an_output_leaves_nothing(name: str, tmp_path: Path) -> None:
    check_free(tmp_path / name, overwrite=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("there.csv", SettingsError),
        ("there.csv/out.csv", OSError),
        ("folder.csv", OSError),
        ("x" * 300, OSError),
        ("x" * 250, OSError),  # the name has room, and that of the temporary file has not
    ],
)
def test_an_output_that_cannot_be_written_is_found_out(name: str, error: type[Exception], tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(error, match=r"there.csv|folder.csv|xxx"):
        check_free(tmp_path / name, overwrite=name == "folder.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "there.csv"]


def test_an_output_inside_of_what_is_read_is_refused(tmp_path: Path) -> None:
    check_apart("output", tmp_path / "ab", "the labels", tmp_path / "a")
    check_apart("output", "s3a://b/a/c", "the labels", "s3a://b/a")  # not of this machine
    for folder in (tmp_path / "a", tmp_path / "a" / "b" / "c", tmp_path / "x" / ".." / "a" / "b"):
        with pytest.raises(SettingsError, match="output is .*, in the folder of the labels"):
            check_apart("output", folder, "the labels", tmp_path / "a")


def test_one_process_tries_whether_a_file_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    check_writable(tmp_path)
    with pytest.raises(SettingsError, match="in the folder of the images"):  # which each process knows by itself
        check_apart("output", tmp_path / "labels", "the images", tmp_path)
