"""The pixels of image files as a pool: memory-mapped from a cache, or decoded each time they are read.

Loader processes get the path of a file, not its pixels, however they are started: a tensor of a mapped file cannot be
sent to a process that is not forked.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.decoding import decode_image, naming, read_image_file


class MappedPixels:
    """Pixels in a file, `uint8 [N, 3, size, size]`, which the system reads into memory as they are used.

    Args:
        path: The file.
        count: The number of images, N.
        size: The height and width of the images in pixels.
    """

    dtype = torch.uint8

    def __init__(self, path: Path, count: int, size: int) -> None:
        self.path = path.resolve()
        self.shape = torch.Size((count, 3, size, size))
        mapped = torch.from_file(str(self.path), shared=False, size=math.prod(self.shape), dtype=torch.uint8)
        self._pixels = mapped.view(self.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.shape[0], self.shape[-1])

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self._pixels[rows]

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Read some rows, `uint8 [n, 3, size, size]`."""
        return self._pixels.index_select(dim, index)

    def to(self, device: torch.device) -> Tensor:
        """Copy all rows to a device."""
        return self._pixels.to(device)


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
            path = Path(self.root, self.keys[row])
            with naming(path):  # a file that has changed since it was listed
                pixels[place] = decode_image(read_image_file(path), size)
        return pixels

    def to(self, device: torch.device) -> Tensor:
        """Refuse: all of them may not fit into memory."""
        raise SettingsError(
            "images that are decoded for each batch cannot lie on a GPU: raise cache_budget_gb, or set on_device: false"
        )
