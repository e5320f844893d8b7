"""Damaged checkpoints: named as such, and never read as other numbers."""

import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints import archives
from tailmatch.lightning_modules.checkpoints.archives import check_archive
from tailmatch.lightning_modules.checkpoints.weights import read_file

CONTENT = {
    "state_dict": {"weight": torch.linspace(-1, 1, 40), "steps": torch.tensor([3, 5])},
    "config": "model: {}\n",
    "loops": [1.5, {"done": None}],
}


def saved(file: Path, **options: Any) -> bytes:
    torch.save(CONTENT, file, **options)
    return file.read_bytes()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and list(one) == list(other) and all(same(one[name], other[name]) for name in one)
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    """Write a damaged file, each under another name, since a good file is not read again."""
    folder, numbers = tmp_path_factory.mktemp("damaged"), count()

    def write(content: bytes) -> Path:
        file = folder / f"{next(numbers)}.ckpt"
        file.write_bytes(content)
        return file

    return write


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return saved(tmp_path_factory.mktemp("good") / "good.ckpt")


@settings(max_examples=400)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), mapped=st.booleans())
def test_a_flipped_bit_is_an_error_or_changes_nothing(
    place: float, bit: int, mapped: bool, good: bytes, damaged: Callable[[bytes], Path]
) -> None:
    content = bytearray(good)
    content[int(place * len(content))] ^= 1 << bit
    file = damaged(bytes(content))
    try:
        read = read_file(str(file), mapped)
    except SettingsError as error:
        assert str(file) in str(error) and "\n" not in str(error)
    else:
        assert same(read, CONTENT)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_part_of_a_file_is_an_error(share: float, good: bytes, damaged: Callable[[bytes], Path]) -> None:
    with pytest.raises(SettingsError, match=r"\.ckpt is (empty|no file of torch\.save|cut off)"):
        check_archive(damaged(good[: int(share * len(good))]))


def test_every_bit_of_the_data_counts(good: bytes, damaged: Callable[[bytes], Path]) -> None:
    start = good.index(torch.linspace(-1, 1, 40).numpy().tobytes())
    for place in range(start, start + 160):
        content = bytearray(good)
        content[place] ^= 1
        with pytest.raises(SettingsError, match=r"is damaged: the CRC-32 of data/0 does not match$"):
            read_file(str(damaged(bytes(content))))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n <!DOCTYPE HTML><title>Log in</title>", "is an HTML page"),
        (b"<html lang=en>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "is a git-lfs pointer"),
        (bytes(5000), "begins with zeros"),
        (b"\x89PNG\r\n", "is not a file of torch.save"),
        (b"PK\3\4" + bytes(100), "is cut off"),
    ],
)
def test_other_files_are_named(content: bytes, reason: str, damaged: Callable[[bytes], Path]) -> None:
    with pytest.raises(SettingsError, match=rf"\.ckpt {reason}"):
        read_file(str(damaged(content)))


def test_members_that_torch_does_not_write(good: bytes, damaged: Callable[[bytes], Path], tmp_path: Path) -> None:
    for attribute, value, reason in (
        ("compress_type", zipfile.ZIP_DEFLATED, "it has compressed members"),
        ("external_attr", 0x10, "it has a folder where tensors should be"),
    ):
        file = tmp_path / f"{attribute}.ckpt"
        with zipfile.ZipFile(damaged(good)) as archive, zipfile.ZipFile(file, "w") as made:
            for member in archive.infolist():
                entry = zipfile.ZipInfo(member.filename)
                if member.filename.endswith("data/0"):
                    setattr(entry, attribute, value)
                made.writestr(entry, archive.read(member))
        with pytest.raises(SettingsError, match=reason):
            read_file(str(file))


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    saved(tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        saved(tmp_path / "plain.ckpt")
    finally:
        torch.serialization.set_crc32_options(before)
    for name in ("old.ckpt", "plain.ckpt"):
        assert same(read_file(str(tmp_path / name)), CONTENT)


def test_a_good_file_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(archives, "_damage", read.append)
    file = tmp_path / "a.ckpt"
    saved(file)
    for _ in range(3):
        check_archive(file)
    assert read == [file]
    torch.save({**CONTENT, "more": 1}, file)
    check_archive(file)
    assert read == [file, file]
