"""The index of an image cache: which files could be read, and the digests of their content."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16
"""The length of a file's content digest (BLAKE2b): two of a million files agree by chance with probability 1e-27."""


class DamagedCache(Exception):
    """A cache that is not whole; the message says why, in one clause."""


@dataclass(frozen=True)
class CacheIndex:
    """What is known of N files since they were decoded: n of them could be read.

    Attributes:
        digests: `uint8 [n, 16]`, the digest of the content of each file that could be read.
        bad: `int64 [N - n]`, the index of each other file.
        reasons: Why each of these could not be read.
    """

    digests: NDArray[np.uint8]
    bad: NDArray[np.int64]
    reasons: Sequence[str]

    def write(self, path: Path) -> None:
        """Write the index to a file, which is an archive of arrays."""
        with path.open("wb") as file:
            np.savez(file, digests=self.digests, bad=self.bad, reasons=np.array(self.reasons, dtype=np.str_))


def read_cache(index: Path, pixels: Path | None, total: int, image_bytes: int) -> CacheIndex | None:
    """Read the index of a cache, if the cache is there and whole. The pixels are counted, not looked at.

    Args:
        index: The path of the index.
        pixels: The path of the pixels. None: they are not cached.
        total: The number of files, N.
        image_bytes: The number of bytes of an image's pixels.

    Returns:
        The index, or None if the index or the pixels are missing.

    Raises:
        DamagedCache: The index is not that of N files, or the number of pixels does not agree with it.
    """
    if not index.exists() or not (pixels is None or pixels.exists()):
        return None
    try:
        if not index.is_file():
            raise ValueError("it is not a file")
        with index.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = CacheIndex(arrays["digests"], arrays["bad"], arrays["reasons"].tolist())
        _check(found, total)
    except Exception as error:  # an archive of arrays that is damaged raises errors of any kind
        raise DamagedCache(f"{index.name}: {type(error).__name__}: {error}") from error
    if pixels is not None:
        size, needed = pixels.stat().st_size, len(found.digests) * image_bytes
        if size != needed:
            raise DamagedCache(f"{pixels.name} has {size} bytes of {needed}")
    return found


def _check(index: CacheIndex, total: int) -> None:
    """Refuse an index whose arrays do not fit together, by a ValueError."""
    digests, bad = index.digests, index.bad
    if digests.dtype != np.uint8 or digests.shape != (total - len(bad), DIGEST_BYTES):
        raise ValueError(f"digests are {digests.dtype} {list(digests.shape)}")
    if bad.dtype != np.int64 or bad.ndim != 1 or len(index.reasons) != len(bad):
        raise ValueError(f"bad files are {bad.dtype} {list(bad.shape)}, with {len(index.reasons)} reasons")
    if len(np.unique(bad)) < len(bad) or not ((bad >= 0) & (bad < total)).all():
        raise ValueError(f"bad files are not different numbers below {total}")
