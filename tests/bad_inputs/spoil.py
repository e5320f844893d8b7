"""Functions that spoil files of the prepared folder. Each returns a function that takes the folder."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.bad_inputs.engine import Spoil

HTML = "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n"


def write(name: str, content: str | bytes = "") -> Spoil:
    """Write a file; its folder is made."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def html(name: str) -> Spoil:
    """Put a web page in place of a file, as a failed download leaves it."""
    return write(name, HTML)


def pointer(name: str) -> Spoil:
    """Put a pointer of git-lfs in place of a file, as a clone without git-lfs leaves it."""
    return write(name, POINTER)


def replace(name: str, old: str, new: str) -> Spoil:
    """Replace a text in a file."""

    def spoil(folder: Path) -> None:
        content = (folder / name).read_text()
        if old not in content:
            raise ValueError(f"{name} has no {old!r}")
        (folder / name).write_text(content.replace(old, new, 1))

    return spoil


def append(name: str, text: str) -> Spoil:
    """Append a text to a file."""
    return lambda folder: write(name, (folder / name).read_text() + text)(folder)


def recode(name: str, encoding: str, old: str = "", new: str = "") -> Spoil:
    """Store a text file in another encoding."""
    return lambda folder: write(name, (folder / name).read_text().replace(old, new).encode(encoding))(folder)


def cut(name: str, share: float = 0.5) -> Spoil:
    """Keep only the first part of a file."""

    def spoil(folder: Path) -> None:
        os.truncate(folder / name, int(share * (folder / name).stat().st_size))

    return spoil


def cut_within(name: str, word: str) -> Spoil:
    """Keep a file up to the middle of the last place where a word stands."""

    def spoil(folder: Path) -> None:
        os.truncate(folder / name, (folder / name).read_bytes().rindex(word.encode()) + len(word) // 2)

    return spoil


def flip(name: str, share: float = 0.5) -> Spoil:
    """Flip one bit in the middle of a file."""

    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[int(share * len(content))] ^= 16
        (folder / name).write_bytes(content)

    return spoil


def remove(name: str) -> Spoil:
    """Remove a file or a folder."""

    def spoil(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def make(name: str) -> Spoil:
    """Make a folder, in place of a file if there is one."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir(parents=True)

    return spoil


def copy(source: str, target: str) -> Spoil:
    """Copy a file or a folder."""

    def spoil(folder: Path) -> None:
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (folder / source).is_dir() else shutil.copy)(folder / source, folder / target)

    return spoil


def copies(source: str, folder_name: str, count: int) -> Spoil:
    """Make a folder of many copies of a file."""

    def spoil(folder: Path) -> None:
        (folder / folder_name).mkdir()
        for number in range(count):
            shutil.copy(folder / source, folder / folder_name / f"{number}{Path(source).suffix}")

    return spoil


def fifo(name: str) -> Spoil:
    """Put a FIFO, which nobody writes to, in place of a file."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def link(name: str, target: str) -> Spoil:
    """Put a link in place of a file."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return spoil


def rights(name: str, mode: int) -> Spoil:
    """Change the rights of a file or a folder."""
    return lambda folder: (folder / name).chmod(mode)


def arrays(name: str, **changed: Any) -> Spoil:
    """Change arrays of an `.npz` file: a function changes the array that is there, None removes it."""

    def spoil(folder: Path) -> None:
        with np.load(folder / name) as members:
            found = dict(members)
        for key, value in changed.items():
            new = value(found[key]) if callable(value) else value
            found.pop(key, None)
            if new is not None:
                found[key] = np.asarray(new)
        np.savez(folder / name, **found)

    return spoil
