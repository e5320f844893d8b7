"""Files are written completely or not at all, and are on the disk before they have their name."""

import errno
import os
from pathlib import Path

import pytest

from tailmatch.datamodules.output_files import stale_partials, whole_file, write_text
from tests.forks import die, exit_code, fork


def test_a_kill_leaves_the_former_file_and_the_temporary_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "former")

    def killed() -> None:
        with whole_file(tmp_path / "a.json") as partial:
            partial.write_text("ha")
            die()

    child = fork(killed)
    assert exit_code(child) == -9
    assert (tmp_path / "a.json").read_text() == "former"
    partial = tmp_path / f"a.json.{child}.partial"
    assert list(stale_partials(tmp_path)) == [(partial, tmp_path / "a.json")]


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
    write_text(path, "text")
    assert seen == [f"{path}.{os.getpid()}.partial", f"renamed to {path}", str(tmp_path)]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_folder_need_not_be_able_to_sync(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir():
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_a_disk_that_is_full_at_the_end_leaves_the_former_file_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "a.txt", "former")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
