"""Image files, decoded and resized once into a memory-mapped `uint8` array."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.progress import track
from torch import Tensor

VERSION = 1
"""Counted up when the decoding changes, so that old caches are not used."""

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
NAMED_FILES = 10
"""Unreadable files that an error names; it counts the others."""


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/tailmatch`, usually `~/.cache/tailmatch`."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tailmatch"


def cached_images(files: Sequence[Path], size: int, cache_dir: Path) -> Tensor:
    """Pixels of image files, `uint8 [N, 3, size, size]`, memory-mapped from a cache built on the first call.

    The cache's name is a digest of the files' paths, sizes and times, and of `size`: a changed file makes a
    new cache. It is written beside its place and moved there when whole, so a half-built one is never used.

    Args:
        files: Image files, in the order of the rows.
        size: Height and width: the shorter side is resized to it, the middle is cropped.
        cache_dir: Folder of the caches; made if missing.

    Raises:
        ValueError: Some files cannot be read as images; it names them.
    """
    path = cache_dir / f"{_digest(files, size)}.uint8"
    shape = (len(files), 3, size, size)
    if not path.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            _build(files, size, partial, shape)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    pixels = torch.from_file(str(path), shared=False, size=int(np.prod(shape)), dtype=torch.uint8)
    return pixels.view(shape)


def read_image(file: Path, size: int) -> NDArray[np.uint8]:
    """One image as `uint8 [3, size, size]`: upright (EXIF), RGB, shorter side resized, middle cropped."""
    with Image.open(file) as image:
        image.draft("RGB", (size, size))  # lets the JPEG decoder skip detail that the resize drops anyway
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if upright.size != (size, size):
        upright = ImageOps.fit(upright, (size, size), method=Image.Resampling.BICUBIC)
    return np.asarray(upright).transpose(2, 0, 1)


def _digest(files: Sequence[Path], size: int) -> str:
    sha = hashlib.sha256(f"{VERSION} {size}".encode())
    for file in files:
        stat = file.stat()
        sha.update(f"\0{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return sha.hexdigest()[:32]


def _build(files: Sequence[Path], size: int, path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.memmap(path, dtype=np.uint8, mode="w+", shape=shape)
    unreadable: list[str] = []

    def decode(row: int) -> None:
        try:
            pixels[row] = read_image(files[row], size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unreadable.append(f"{files[row]} ({error})")

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        for _ in track(pool.map(decode, range(len(files))), f"decoding {len(files)} images", len(files)):
            pass
    if unreadable:
        more = f" and {len(unreadable) - NAMED_FILES} more" if len(unreadable) > NAMED_FILES else ""
        names = "; ".join(sorted(unreadable)[:NAMED_FILES])
        raise ValueError(f"{len(unreadable)} unreadable images, remove or replace them: {names}{more}")
    pixels.flush()
