"""The base of data sets that are made of image files: reading, caching, checks."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.files.image_cache import cache_paths, default_cache_dir, find_files, open_images
from tailmatch.datamodules.images import Images, Sources

OnBadImage: TypeAlias = Literal["error", "skip"]


@dataclass(frozen=True)
class FileList:
    """The files of a split.

    Attributes:
        keys: Paths, relative to the root.
        targets: `int64 [N]`, -1 where unknown.
        categories: `int64 [N, L]`, -1 where unknown, or None.
    """

    keys: Sequence[str]
    targets: Tensor
    categories: Tensor | None = None


class FileReader:
    """Reads the files of a data set through one cache, or without.

    Args:
        root: Folder that the keys are relative to.
        image_size: See `ImageFiles`, as the others.
        cache_dir: See there.
        cache_budget_gb: See there.
        on_bad_image: See there.

    Raises:
        SettingsError: One of them is out of its domain.
    """

    def __init__(
        self, root: Path, image_size: int, cache_dir: str | None, cache_budget_gb: float, on_bad_image: OnBadImage
    ) -> None:
        if image_size < 1:
            raise SettingsError(f"image_size is {image_size}; it must be at least 1")
        if not cache_budget_gb >= 0:
            raise SettingsError(f"cache_budget_gb is {cache_budget_gb}; it must be at least 0")
        if on_bad_image not in ("error", "skip"):
            raise SettingsError(f"on_bad_image is {on_bad_image!r}; it must be error or skip")
        self.root = root
        self.image_size = image_size
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.cache_budget_gb = cache_budget_gb
        self.skip_bad = on_bad_image == "skip"

    def read(
        self, lists: Mapping[str, FileList], describe: Callable[[str], str], num_workers: int
    ) -> dict[str, Images]:
        """The images of each list that can be read.

        Args:
            lists: Files by split.
            describe: How a message names a file, given its key.
            num_workers: Of the loaders, which decode what is not cached.

        Raises:
            MissingFileError: Files are missing.
            SettingsError: Files cannot be read.
        """
        total = sum(len(files.keys) for files in lists.values()) * 3 * self.image_size**2
        cached = total <= self.cache_budget_gb * 1e9
        if not cached and not num_workers:
            rank_zero_warn(
                f"{total / 1e9:.1f} GB of pixels are more than cache_budget_gb {self.cache_budget_gb}, so every "
                "batch is decoded anew, and num_workers is 0: give the number of processes that shall do it"
            )
        return {name: self._open(files, cached, describe) for name, files in lists.items()}

    def cache_of(self, keys: Sequence[str], describe: Callable[[str], str]) -> tuple[Path, Path]:
        """Where `read` keeps pixels and index of a list of files."""
        return cache_paths(find_files(self.root, keys, describe), self.image_size, self.cache_dir)

    def _open(self, listed: FileList, cached: bool, describe: Callable[[str], str]) -> Images:
        files = find_files(self.root, listed.keys, describe)
        found = open_images(
            files, self.image_size, self.cache_dir, cached=cached, skip_bad=self.skip_bad, describe=describe
        )
        return Images(
            found.pixels,
            listed.targets[found.kept],
            keys=tuple(listed.keys[row] for row in found.kept.tolist()),
            file_sizes=torch.from_numpy(files.sizes)[found.kept],
            categories=None if listed.categories is None else listed.categories[found.kept],
            digests=found.digests,
        )


class ImageFiles(LabeledUnlabeledDataModule):
    """Images from files. A subclass lists them, with their classes, and sets `class_names` before this `__init__`.

    All files are decoded once, before the first training: into a memory-mapped cache, or, where the set is larger than
    `cache_budget_gb`, only to find those that cannot be read. A larger set is decoded again in every batch, to the
    same pixels, by `num_workers` processes.

    Args:
        root: Folder of the images.
        image_size: Height and width that images are brought to: the middle square, resized.
        horizontal_flip: Whether a mirrored image is a valid image of its class.
        mean: Channel means in [0, 1] for the network's normalization (default: ImageNet's).
        std: Channel standard deviations.
        cache_dir: Folder of the cache; None is `~/.cache/tailmatch`.
        cache_budget_gb: Most gigabytes (1e9 bytes) on the disk for the pixels of this set; 0: no cache. The default
            holds ImageNet-LT with its validation and test images at 224 pixels (28 GB).
        on_bad_image: What to do with files that cannot be read: `error` names all of them, `skip` leaves them out
            and lists them in a warning.
        **kwargs: The arguments of `LabeledUnlabeledDataModule`.
    """

    def __init__(
        self,
        root: str,
        *,
        image_size: int = 32,
        horizontal_flip: bool = True,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        cache_dir: str | None = None,
        cache_budget_gb: float = 32.0,
        on_bad_image: OnBadImage = "error",
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.image_size = image_size
        self.horizontal_flip = horizontal_flip
        self.mean = mean or self.mean
        self.std = std or self.std
        self.reader = FileReader(self.root, image_size, cache_dir, cache_budget_gb, on_bad_image)
        self._sources: Sources | None = None
        super().__init__(**kwargs)

    @abstractmethod
    def list_files(self) -> dict[str, FileList]:
        """Files of `train`, and of `val` and `test` where the data set has these splits."""

    def describe(self, key: str) -> str:
        """How a message names a file."""
        return str(self.root / key)

    def prepare_data(self) -> None:
        """Build the caches, on one process."""
        self.load()

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        if self._sources is None:
            images = self.reader.read(self.list_files(), self.describe, self.num_workers)
            self._sources = Sources(images["train"], val=images.get("val"), test=images.get("test"))
        return self._sources
