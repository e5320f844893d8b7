"""One process alone writes, whatever ends it."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tailmatch.datamodules import locks
from tailmatch.datamodules.locks import InUseError, sole_writer
from tests.forks import exit_code, fork, meanwhile


def hold(lock: Path, ready: Path) -> None:
    with sole_writer(lock, "the run", "wait"):
        ready.touch()
        time.sleep(60)


def test_another_process_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with meanwhile(hold, lock, tmp_path / "ready", until=tmp_path / "ready") as child:
        before = lock.read_bytes()
        for _ in range(2):  # a refused attempt does not end the lock
            with pytest.raises(InUseError) as refused, sole_writer(lock, "runs/mine", "wait for its end"):
                pass
        host = os.uname().nodename
        assert str(refused.value).startswith(f"runs/mine is being written by process {child} on {host} since 20")
        assert str(refused.value).endswith(": wait for its end")
        assert lock.read_bytes() == before
    assert lock.exists()  # it was killed
    with sole_writer(lock, "runs/mine", "wait"):
        assert lock.read_text().startswith(f"process {os.getpid()} on ")
    assert not lock.exists()


def test_a_process_that_this_one_starts_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock, ready = tmp_path / "run.lock", tmp_path / "ready"

    def begin() -> None:
        with sole_writer(lock, "the run", "wait"):
            worker = fork(time.sleep, 60)
            ready.write_text(str(worker))
            time.sleep(60)

    with meanwhile(begin, until=ready):
        time.sleep(0.05)
    worker = int(ready.read_text())
    try:
        with sole_writer(lock, "the run", "wait"):
            os.kill(worker, 0)  # it lives on
    finally:
        os.kill(worker, 9)


def test_of_processes_that_start_together_one_wins_and_its_end_frees_the_next(tmp_path: Path) -> None:
    lock, inside = tmp_path / "deep" / "er" / "run.lock", tmp_path / "inside"

    def work() -> None:
        done = 0
        while done < 20:
            try:
                with sole_writer(lock, "the run", "wait"):
                    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is inside
                    done += 1
                    inside.unlink()
            except InUseError:
                pass

    children = [fork(work) for _ in range(4)]
    assert [exit_code(child) for child in children] == [0] * 4
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_process_does_not_lock_itself_out_of_its_own_lock(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with sole_writer(lock, "the run", "wait"):
        (tmp_path / "link").symlink_to(tmp_path)
        with pytest.raises(InUseError, match="by another command of this process: wait"):
            with sole_writer(tmp_path / "link" / "run.lock", "the run", "wait"):
                pass

        def refused() -> None:
            locks._HELD.clear()
            with pytest.raises(InUseError), sole_writer(lock, "the run", "wait"):
                pass

        assert exit_code(fork(refused)) == 0  # it is still held


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_there_is_a_warning(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "lockf", fail)
    with pytest.warns(UserWarning, match="is on a file system without locks"):
        with sole_writer(tmp_path / "run.lock", "the run", "wait"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_taken_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(locks.fcntl, "lockf", fail)
    with pytest.raises(OSError, match="Input/output"), sole_writer(tmp_path / "run.lock", "the run", "wait"):
        pass


def test_without_record_locks_another_kind_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    lock, ready = tmp_path / "new" / "run.lock", tmp_path / "ready"
    with meanwhile(hold, lock, ready, until=ready):
        with pytest.raises(InUseError, match="the run is being written by another process: wait"):
            with sole_writer(lock, "the run", "wait"):
                pass
    with sole_writer(lock, "the run", "wait"):
        pass


@pytest.mark.parametrize("kept", [True, False])
def test_folders_that_were_made_stay_if_something_is_in_them(kept: bool, tmp_path: Path) -> None:
    with sole_writer(tmp_path / "a" / "b" / "run.lock", "the run", "wait"):
        if kept:
            (tmp_path / "a" / "b" / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == (["a", "b", "file"] if kept else [])


def test_a_file_that_was_replaced_meanwhile_is_not_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, original = tmp_path / "run.lock", locks.fcntl.lockf
    replaced: list[Path] = []

    def late(descriptor: int, *args: Any) -> None:
        original(descriptor, *args)
        if not replaced:  # the process that had the lock has removed the file, and a third has made a new one
            lock.unlink()
            lock.touch()
            replaced.append(lock)

    monkeypatch.setattr(locks.fcntl, "lockf", late)
    with sole_writer(lock, "the run", "wait"):
        assert lock.read_text().startswith("process ")
    assert not lock.exists()
