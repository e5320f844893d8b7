"""Outputs are whole or absent, what cannot be written is found out early, and errors of the disk name a file."""

import errno
from pathlib import Path

import pytest
import torch

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import check_free, naming, whole_file


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
