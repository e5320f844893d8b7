"""The pixels of image files: decoded once into a memory-mapped cache, or each time they are read."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning_utilities.core.rank_zero import rank_zero_warn
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from rich.progress import track
from torch import Tensor

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files.decoding import UNREADABLE, VERSION, decode_image
from tailmatch.datamodules.images import Pixels
from tailmatch.datamodules.output_files import stale_partials, whole_file

BLOCK = 1024
"""How many images are decoded in parallel before they are written; this bounds the memory."""

DIGEST_BYTES = 16
"""The length of a file's content digest (BLAKE2b): two of a million files agree by chance with probability 1e-27."""

Integers = NDArray[np.int64]


def default_cache_dir() -> Path:
    """Give the folder `$XDG_CACHE_HOME/tailmatch`, usually `~/.cache/tailmatch`."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tailmatch"


@dataclass(frozen=True)
class Files:
    """Image files that exist.

    Attributes:
        root: The folder that the keys are relative to.
        keys: The path of each file.
        sizes: The size of each file in bytes.
        times: The time of each file's last change in nanoseconds.
    """

    root: Path
    keys: Sequence[str]
    sizes: Integers
    times: Integers

    def digest(self, size: int) -> str:
        """Compute the name of the cache of these files at an image size; it changes as soon as a file does."""
        sha = hashlib.sha256(f"{VERSION} {size}\0{self.root.resolve()}".encode("utf-8", "surrogateescape"))
        sha.update("\0".join(self.keys).encode("utf-8", "surrogateescape"))
        sha.update(self.sizes.tobytes() + self.times.tobytes())
        return sha.hexdigest()[:32]


def find_files(root: Path, keys: Sequence[str], describe: Callable[[str], str] = str) -> Files:
    """Look the files up on the disk.

    Args:
        root: The folder that the keys are relative to.
        keys: The path of each file.
        describe: A function that gives the name of a file in messages, given its key.

    Raises:
        MissingFileError: Files are missing; the message names the first ten.
    """
    facts = np.zeros((2, len(keys)), dtype=np.int64)
    missing: list[str] = []
    for row, key in enumerate(keys):
        try:
            stat = os.stat(f"{root}/{key}")
        except OSError:
            missing.append(describe(key) if len(missing) < 10 else key)
            continue
        facts[:, row] = stat.st_size, stat.st_mtime_ns
    if missing:
        more = f"\n  and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise MissingFileError(
            f"{len(missing)} image files are not in {root.resolve()}:\n  " + "\n  ".join(missing[:10]) + more
        )
    return Files(root, keys, facts[0], facts[1])


class FilePixels:
    """Pixels that are decoded from the files each time they are read; they equal those of a cache.

    Args:
        root: The folder that the keys are relative to.
        keys: The path of each file.
        size: The height and width of the images in pixels.
    """

    dtype = torch.uint8

    def __init__(self, root: Path, keys: Sequence[str], size: int) -> None:
        self.root = root
        self.keys = keys
        self.shape = torch.Size((len(keys), 3, size, size))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.index_select(0, rows)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Decode some rows, `uint8 [n, 3, size, size]`, as a tensor's `index_select` along `dim` 0 would give them."""
        size = self.shape[-1]
        pixels = torch.empty((len(index), *self.shape[1:]), dtype=torch.uint8)
        for place, row in enumerate(index.tolist()):
            pixels[place] = decode_image(Path(self.root, self.keys[row]).read_bytes(), size)
        return pixels


def cache_paths(files: Files, size: int, cache_dir: Path) -> tuple[Path, Path]:
    """Give the paths at which the pixels of image files and the index of the readable ones are cached."""
    path = cache_dir / f"{files.digest(size)}.uint8"
    return path, path.with_suffix(".npz")


@dataclass(frozen=True)
class ReadableImages:
    """The n files that could be read.

    Attributes:
        pixels: `uint8 [n, 3, size, size]`, the images.
        kept: `int64 [n]`, the index of each among all files.
        digests: `uint8 [n, 16]`, the digest of each file's content.
    """

    pixels: Pixels
    kept: Tensor
    digests: Tensor


def open_images(
    files: Files,
    size: int,
    cache_dir: Path,
    *,
    cached: bool,
    skip_bad: bool,
    describe: Callable[[str], str] = str,
) -> ReadableImages:
    """Open the pixels of image files. The first call decodes all files, which also finds those that cannot be read.

    `Files.digest` names the cache. It is written to another file under a lock, and renamed when it is whole, so that a
    half-built cache is never used and two processes do not build it twice.

    Args:
        files: The files, in the order of the rows.
        size: The height and width of the images in pixels, see `decode_image`.
        cache_dir: The folder of the caches; it is made if it is missing.
        cached: Whether the pixels are kept on the disk. False: they are decoded each time they are read.
        skip_bad: Whether files that cannot be read are left out, with a warning that names them.
        describe: A function that gives the name of a file in messages, given its key.

    Raises:
        SettingsError: Files cannot be read and `skip_bad` is false (the message names all of them), no file can be
            read, or the disk has no room for the cache.
    """
    path, index = cache_paths(files, size, cache_dir)

    def done() -> bool:
        return index.exists() and (path.exists() or not cached)

    if not done():
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_remains(cache_dir)
        with FileLock(path.with_suffix(".lock")):
            if not done():
                _build(files, size, path if cached else None, index, None if skip_bad else describe)
    with np.load(index, allow_pickle=False) as facts:
        digests, bad, reasons = facts["digests"], facts["bad"], facts["reasons"].tolist()
    named = [f"{describe(files.keys[row])} ({reason})" for row, reason in zip(bad.tolist(), reasons, strict=True)]
    if named and (not skip_bad or len(named) == len(files.keys)):
        raise _unreadable(named)
    if named:
        rank_zero_warn(f"{len(named)} unreadable images are left out:\n  " + "\n  ".join(named))
    kept = np.delete(np.arange(len(files.keys)), bad)
    if not cached:
        keys = files.keys if not named else [files.keys[row] for row in kept.tolist()]
        return ReadableImages(FilePixels(files.root, keys, size), torch.from_numpy(kept), torch.from_numpy(digests))
    shape = (len(kept), 3, size, size)
    pixels = torch.from_file(str(path), shared=False, size=int(np.prod(shape)), dtype=torch.uint8).view(shape)
    return ReadableImages(pixels, torch.from_numpy(kept), torch.from_numpy(digests))


def _unreadable(named: list[str]) -> SettingsError:
    return SettingsError(
        f"{len(named)} unreadable images; replace or remove them, or leave them out with on_bad_image: skip\n  "
        + "\n  ".join(named)
    )


def _build(
    files: Files, size: int, path: Path | None, index: Path, describe_error: Callable[[str], str] | None
) -> None:
    """Decode all files; write the index, and the pixels to `path` unless it is None.

    If `describe_error` is given, unreadable files are an error, and nothing is written.
    """
    digests: list[bytes] = []
    bad: dict[int, str] = {}
    try:
        with ExitStack() as stack:  # the pixels are renamed before the index, which is written last
            facts = stack.enter_context(whole_file(index))
            pixels = None if path is None else stack.enter_context(whole_file(path))
            out = None if pixels is None else stack.enter_context(_room(pixels, len(files.keys) * 3 * size * size))
            for row, decoded in enumerate(_decode_all(files, size)):
                if isinstance(decoded, str):
                    bad[row] = decoded
                    continue
                digests.append(decoded[0])
                if out is not None:
                    out.write(decoded[1])
            if bad and describe_error is not None:
                raise _unreadable([f"{describe_error(files.keys[row])} ({reason})" for row, reason in bad.items()])
            with facts.open("wb") as file:
                np.savez(
                    file,
                    digests=np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES),
                    bad=np.array(list(bad), dtype=np.int64),
                    reasons=np.array(list(bad.values()), dtype=np.str_),
                )
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SettingsError(f"{index.parent} is full while the cache is written: {_ADVICE}") from error


def _remove_remains(cache_dir: Path) -> None:
    """Remove what builds that were killed have left, of all caches in the folder."""
    for partial, target in stale_partials(cache_dir):
        with suppress(Timeout), FileLock(target.with_suffix(".lock"), timeout=0):
            partial.unlink(missing_ok=True)


_ADVICE = "make room, name another cache_dir, or give a smaller image_size or cache_budget_gb (0: no cache)"


def _room(path: Path, needed: int) -> Any:
    """Open a file to write `needed` bytes to.

    Raises:
        SettingsError: They do not fit on the disk.
    """
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise SettingsError(
            f"the cache needs {needed / 1e9:.2f} GB and {path.parent.resolve()} has {free / 1e9:.2f} GB left: {_ADVICE}"
        )
    return path.open("wb")


def _decode_all(files: Files, size: int) -> Iterator[str | tuple[bytes, bytes]]:
    """Decode the files in parallel: in order, the content digest and pixels of each, or why it cannot be read."""
    total = len(files.keys)

    def decode(row: int) -> str | tuple[bytes, bytes]:
        try:
            data = Path(files.root, files.keys[row]).read_bytes()
            digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
            return digest, decode_image(data, size).numpy().tobytes()
        except UnidentifiedImageError:  # its message has an address in memory
            return "empty" if not data else "no image of a known format"
        except UNREADABLE as error:
            return f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = (range(start, min(start + BLOCK, total)) for start in range(0, total, BLOCK))
        decoded = (result for block in blocks for result in pool.map(decode, block))
        yield from track(decoded, f"decoding {total:,} images", total)
