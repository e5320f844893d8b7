"""The pixels of image files: decoded once into a memory-mapped cache, or each time they are read."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files.cache_folder import alone, room_for, writable
from tailmatch.datamodules.files.cache_index import DIGEST_BYTES, CacheIndex, DamagedCache, read_cache
from tailmatch.datamodules.files.decoding import IMAGE_SUFFIXES, VERSION, UnreadableImage, decode_image, read_image_file
from tailmatch.datamodules.files.file_pixels import FilePixels, MappedPixels
from tailmatch.datamodules.images import Pixels
from tailmatch.datamodules.output_files import whole_file

BLOCK = 1024
"""How many images are decoded in parallel before they are written; this bounds the memory."""

Integers = NDArray[np.int64]


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
        MissingFileError: Files are missing; the message names the first ten, and says what the first may mean.
    """
    facts = np.zeros((2, len(keys)), dtype=np.int64)
    missing: list[str] = []
    hint = ""
    for row, key in enumerate(keys):
        try:
            stat = os.stat(f"{root}/{key}")
        except (OSError, ValueError):  # ValueError: a zero byte in the path
            hint = hint if missing else _meant(root, key)
            missing.append(describe(key) if len(missing) < 10 else key)
            continue
        facts[:, row] = stat.st_size, stat.st_mtime_ns
    if missing:
        more = f"\n  and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise MissingFileError(
            f"{len(missing)} image files are not in {root.resolve()}:\n  " + "\n  ".join(missing[:10]) + more + hint
        )
    return Files(root, keys, facts[0], facts[1])


def _meant(root: Path, key: str) -> str:
    """Say why a file that the user sees is missing nevertheless; empty if there is no file like it."""
    path = root / key
    try:
        if path.is_symlink():
            return f"\n  {key} is a link to {path.readlink()}, which does not exist: mend or remove it"
        if "\\" in key and (root / key.replace("\\", "/")).is_file():
            return f"\n  there is {key.replace(chr(92), '/')}: write / for \\ in the paths"
        suffix = next((each for each in sorted(IMAGE_SUFFIXES) if path.with_name(path.name + each).is_file()), "")
        return f"\n  there is {key}{suffix}: give image_suffix: {suffix}" if suffix else ""
    except (OSError, ValueError):  # such as a zero byte in the path
        return ""


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
    half-built cache is never used and two processes do not build it twice. A damaged cache is built anew, and a warning
    says so.

    Args:
        files: The files, in the order of the rows.
        size: The height and width of the images in pixels, see `decode_image`.
        cache_dir: The folder of the caches; it is made if it is missing.
        cached: Whether the pixels are kept on the disk. False: they are decoded each time they are read.
        skip_bad: Whether files that cannot be read are left out, with a warning that names them.
        describe: A function that gives the name of a file in messages, given its key.

    Raises:
        SettingsError: Files cannot be read and `skip_bad` is false (the message names all of them), no file can be
            read, or the cache cannot be written.
    """
    path, index = cache_paths(files, size, cache_dir)
    pixel_file = path if cached else None
    read = partial(read_cache, index, pixel_file, len(files.keys), 3 * size * size)
    found = None
    with suppress(DamagedCache):  # the process that builds it anew says so
        found = read()
    if found is None:
        with writable(cache_dir), alone(path.with_suffix(".lock")):
            try:
                found = read()
            except DamagedCache as damage:
                rank_zero_warn(f"the image cache in {cache_dir} is damaged and rebuilt ({damage})")
            found = found or _build(files, size, pixel_file, index, None if skip_bad else describe)
    digests, bad = found.digests, found.bad
    named = [f"{describe(files.keys[row])} ({why})" for row, why in zip(bad.tolist(), found.reasons, strict=True)]
    if named and (not skip_bad or len(named) == len(files.keys)):
        raise _unreadable(named)
    if named:
        rank_zero_warn(f"unreadable images are left out ({len(named)}):\n  " + "\n  ".join(named))
    kept = np.delete(np.arange(len(files.keys)), bad)
    if not cached:
        keys = files.keys if not named else [files.keys[row] for row in kept.tolist()]
        return ReadableImages(FilePixels(files.root, keys, size), torch.from_numpy(kept), torch.from_numpy(digests))
    return ReadableImages(MappedPixels(path, len(kept), size), torch.from_numpy(kept), torch.from_numpy(digests))


def _unreadable(named: list[str]) -> SettingsError:
    return SettingsError(
        f"unreadable images ({len(named)}): replace or remove them, or leave them out with on_bad_image: skip\n  "
        + "\n  ".join(named)
    )


def _build(
    files: Files, size: int, path: Path | None, index: Path, describe_error: Callable[[str], str] | None
) -> CacheIndex:
    """Decode all files; write the index, and the pixels to `path` unless it is None.

    If `describe_error` is given, unreadable files are an error, and nothing is written.
    """
    digests: list[bytes] = []
    bad: dict[int, str] = {}
    with ExitStack() as stack:  # the pixels are renamed before the index, which is written last
        facts = stack.enter_context(whole_file(index))
        pixels = None if path is None else stack.enter_context(whole_file(path))
        out = None if pixels is None else stack.enter_context(room_for(pixels, len(files.keys) * 3 * size * size))
        for row, decoded in enumerate(_decode_all(files, size)):
            if isinstance(decoded, str):
                bad[row] = decoded
                continue
            digests.append(decoded[0])
            if out is not None:
                out.write(decoded[1])
        if bad and describe_error is not None:
            raise _unreadable([f"{describe_error(files.keys[row])} ({reason})" for row, reason in bad.items()])
        content = np.frombuffer(bytearray(b"".join(digests)), dtype=np.uint8).reshape(-1, DIGEST_BYTES)
        built = CacheIndex(content, np.array(list(bad), dtype=np.int64), list(bad.values()))
        built.write(facts)
    return built


def _decode_all(files: Files, size: int) -> Iterator[str | tuple[bytes, bytes]]:
    """Decode the files in parallel: in order, the content digest and pixels of each, or why it cannot be read."""
    total = len(files.keys)

    def decode(row: int) -> str | tuple[bytes, bytes]:
        try:
            data = read_image_file(Path(files.root, files.keys[row]))
            digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
            return digest, decode_image(data, size).numpy().tobytes()
        except UnreadableImage as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = (range(start, min(start + BLOCK, total)) for start in range(0, total, BLOCK))
        decoded = (result for block in blocks for result in pool.map(decode, block))
        yield from track(decoded, f"decoding {total:,} images", total)
