"""Cached and decoded pixels agree; caches are whole, built once, and say what is wrong."""

import errno
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from PIL import Image

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files import cache_folder, image_cache
from tailmatch.datamodules.files.file_pixels import FilePixels
from tailmatch.datamodules.files.image_cache import ReadableImages, find_files, open_images

KEYS = [f"{k}.png" for k in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for key in KEYS:
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(tmp_path / key)
    return tmp_path


def opened(folder: Path, keys: list[str] = KEYS, **options: Any) -> ReadableImages:
    options = {"cached": True, "skip_bad": False, **options}
    return open_images(find_files(folder, keys), 6, folder / "cache", **options)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry with every image that is decoded."""
    calls: list[int] = []
    original = image_cache.decode_image

    def counting(data: bytes, size: int) -> torch.Tensor:
        calls.append(len(data))
        return original(data, size)

    monkeypatch.setattr(image_cache, "decode_image", counting)
    return calls


def test_cached_and_decoded_pixels_agree(folder: Path) -> None:
    cached, lazy = opened(folder), opened(folder, cached=False)
    rows = torch.tensor([4, 0, 0, 5])
    assert isinstance(lazy.pixels, FilePixels) and len(lazy.pixels) == len(cached.pixels) == 6
    assert lazy.pixels.shape == cached.pixels.shape and lazy.pixels.dtype == cached.pixels.dtype
    assert torch.equal(cached.pixels.index_select(0, rows), lazy.pixels.index_select(0, rows))
    assert torch.equal(cached.pixels[rows], lazy.pixels[rows])
    assert torch.equal(cached.digests, lazy.digests)


def test_without_a_cache_no_pixels_are_on_the_disk(folder: Path) -> None:
    opened(folder, cached=False)
    assert not list((folder / "cache").glob("*.uint8"))


def test_a_second_run_decodes_nothing_and_a_changed_file_all(folder: Path, decoded: list[int]) -> None:
    first = opened(folder).pixels
    assert len(decoded) == 6
    assert torch.equal(opened(folder).pixels[torch.arange(6)], first[torch.arange(6)]) and len(decoded) == 6
    os.utime(folder / KEYS[0], ns=(0, 0))
    opened(folder)
    assert len(decoded) == 12


def test_two_at_once_build_it_once(folder: Path, decoded: list[int]) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: opened(folder).pixels[torch.arange(6)], range(2))
    assert torch.equal(first, second) and len(decoded) == 6


def test_what_a_killed_process_left_is_not_used(folder: Path, decoded: list[int]) -> None:
    whole = opened(folder).pixels[torch.arange(6)].clone()
    [index], [pixels] = (folder / "cache").glob("*.npz"), (folder / "cache").glob("*.uint8")
    index.unlink()
    pixels.write_bytes(b"\0" * 10)
    for partial in (f"{index.name}.123", f"{pixels.name}.123", f"{'0' * 32}.uint8.45"):  # the last is of other files
        (folder / "cache" / f"{partial}.partial").write_bytes(b"\0" * 5)
    with FileLock(folder / "cache" / f"{'1' * 32}.lock"):  # being built by another
        (folder / "cache" / f"{'1' * 32}.uint8.67.partial").touch()
        assert torch.equal(opened(folder).pixels[torch.arange(6)], whole) and len(decoded) == 12
    assert [file.name[:1] for file in (folder / "cache").glob("*.partial")] == ["1"]


@pytest.mark.parametrize("cached", [True, False])
def test_unreadable_files_are_left_out_and_listed(folder: Path, cached: bool) -> None:
    (folder / "1.png").write_bytes(b"no image")
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:-100])
    for _ in range(2):  # the second time, from the index
        with pytest.warns(UserWarning, match=r"(?s)unreadable images are left out \(2\).*1\.png \(no image.*4\.png"):
            found = opened(folder, cached=cached, skip_bad=True)
        assert found.kept.tolist() == [0, 2, 3, 5] and len(found.digests) == 4
        for place, row in enumerate(found.kept.tolist()):
            alone = opened(folder, [KEYS[row]], cached=False).pixels
            assert torch.equal(found.pixels[torch.tensor([place])], alone[torch.tensor([0])])
    with pytest.raises(ValueError, match=r"(?s)unreadable images \(2\): .*1\.png.*4\.png"):
        opened(folder, cached=cached)


def test_an_error_names_all_unreadable_files_and_leaves_nothing(folder: Path) -> None:
    for key in KEYS:
        (folder / key).write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)unreadable images \(6\).*" + ".*".join(KEYS)):
        opened(folder)
    assert {path.suffix for path in (folder / "cache").iterdir()} <= {".lock"}
    with pytest.raises(ValueError, match=r"unreadable images \(6\)"):
        opened(folder, skip_bad=True)


def test_missing_files_are_named_as_asked(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)2 image files are not in .*row of a\.png.*row of b\.png"):
        find_files(folder, ["a.png", KEYS[0], "b.png"], "row of {}".format)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("sub\\b.png", "there is sub/b.png: write / for \\ in the paths"),
        ("sub/b", "there is sub/b.png: give image_suffix: .png"),
        ("link.png", "link.png is a link to nowhere.png, which does not exist: mend or remove it"),
    ],
)
def test_a_missing_file_that_is_there_under_another_name_is_explained(key: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.png").touch()
    (tmp_path / "link.png").symlink_to("nowhere.png")
    with pytest.raises(MissingFileError) as error:
        find_files(tmp_path, [key])
    assert str(error.value).endswith(f"1 image files are not in {tmp_path}:\n  {key}\n  {hint}")


def test_no_room_is_said_before_and_while_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
        with pytest.raises(SettingsError, match=r"needs 0\.00 GB and .* has 0\.00 GB left: make room"):
            opened(folder)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_cache.CacheIndex, "write", full)
    with pytest.raises(SettingsError, match="is full while the cache is written: make room"):
        opened(folder)
    assert {path.suffix for path in (folder / "cache").iterdir()} <= {".lock", ".uint8"}


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path], None]:
    """Change arrays of the index."""

    def damage(index: Path, pixels: Path) -> None:
        with np.load(index) as arrays:
            content = dict(arrays)
        change(content)
        np.savez(index, **content)

    return damage


DAMAGES: dict[str, Callable[[Path, Path], Any]] = {
    "index cut off": lambda index, pixels: index.write_bytes(index.read_bytes()[:-30]),
    "index empty": lambda index, pixels: index.write_bytes(b""),
    "index of text": lambda index, pixels: index.write_text("<html>"),
    "bit flip in the index": lambda index, pixels: index.write_bytes(flipped(index.read_bytes())),
    "index is a pipe": lambda index, pixels: (index.unlink(), os.mkfifo(index)),
    "index lacks an array": damaged(lambda arrays: arrays.pop("reasons")),
    "index of another version": damaged(lambda arrays: arrays.update(digests=arrays["digests"][:, :8])),
    "index of fewer files": damaged(lambda arrays: arrays.update(digests=arrays["digests"][:4])),
    "bad files out of range": damaged(
        lambda arrays: arrays.update(bad=np.array([99]), reasons=np.array(["x"]), digests=arrays["digests"][:5])
    ),
    "pixels cut off": lambda index, pixels: os.truncate(pixels, 50),
    "pixels of more images": lambda index, pixels: pixels.write_bytes(pixels.read_bytes() * 2),
}


def flipped(content: bytes) -> bytes:
    place = content.index(b"\x93NUMPY") + 130  # within the digests
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_anew_with_one_warning(damage: str, folder: Path, decoded: list[int]) -> None:
    whole = opened(folder)
    expected, digests = whole.pixels[torch.arange(6)].clone(), whole.digests.clone()
    [index], [pixels] = (folder / "cache").glob("*.npz"), (folder / "cache").glob("*.uint8")
    DAMAGES[damage](index, pixels)
    with pytest.warns(UserWarning) as said:
        again = opened(folder)
    assert [str(warning.message).count("is damaged and rebuilt") for warning in said] == [1]
    assert "\n" not in str(said[0].message)
    assert torch.equal(again.pixels[torch.arange(6)], expected) and torch.equal(again.digests, digests)
    assert len(decoded) == 12
    opened(folder)
    assert len(decoded) == 12  # the new one is whole


@pytest.mark.parametrize("missing", ["*.npz", "*.uint8"])
def test_a_cache_of_which_a_part_was_removed_is_built_anew(missing: str, folder: Path, decoded: list[int]) -> None:
    expected = opened(folder).pixels[torch.arange(6)].clone()
    for file in (folder / "cache").glob(missing):
        file.unlink()
    assert torch.equal(opened(folder).pixels[torch.arange(6)], expected) and len(decoded) == 12


def test_a_cache_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "cache").write_text("a file")
    with pytest.raises(SettingsError, match=r"cache cannot hold the cache \(File exists\): .*name another cache_dir"):
        opened(folder)


def test_a_process_that_waits_for_another_one_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folder.FileLock, "acquire", impatient(cache_folder.FileLock.acquire))
    with pytest.warns(UserWarning, match="waiting for another process that builds the image cache in"):
        assert len(opened(folder).pixels) == 6


def impatient(acquire: Callable[..., Any]) -> Callable[..., Any]:
    """Let the lock be free on the second attempt alone."""
    calls = []

    def attempt(self: Any, timeout: float | None = None, **options: Any) -> Any:
        calls.append(timeout)
        if len(calls) == 1:
            raise Timeout(str(self.lock_file))
        return acquire(self, timeout, **options)

    return attempt


def test_the_digest_tells_contents_apart(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / KEYS[0], folder / "twin.png")
    digests = opened(folder, [*KEYS, "twin.png"]).digests
    same = (digests[:, None] == digests[None]).all(dim=2)
    expected = torch.eye(7, dtype=torch.bool)
    expected[0, 6] = expected[6, 0] = True
    assert torch.equal(same, expected)


def test_the_name_depends_on_list_sizes_times_and_size(folder: Path) -> None:
    def name(change: Callable[[image_cache.Files], image_cache.Files] = lambda files: files, size: int = 6) -> str:
        return change(find_files(folder, KEYS)).digest(size)

    changes: list[Callable[[Any], image_cache.Files]] = [
        lambda f: image_cache.Files(f.root, f.keys[::-1], f.sizes, f.times),
        lambda f: image_cache.Files(f.root, f.keys, f.sizes + 1, f.times),
        lambda f: image_cache.Files(f.root, f.keys, f.sizes, f.times + 1),
        lambda f: image_cache.Files(f.root.parent, f.keys, f.sizes, f.times),
    ]
    assert len({name(), name(size=7), *map(name, changes)}) == 6 and name() == name()
