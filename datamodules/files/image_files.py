"""The base of data modules that read image files."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from tailmatch.datamodules.arguments import check_at_least, check_channel_statistics, check_choice
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.files.cache_folder import default_cache_dir
from tailmatch.datamodules.files.image_cache import cache_paths, find_files, open_images
from tailmatch.datamodules.files.pixels import check_side
from tailmatch.datamodules.images import Images, Sources

OnBadImage: TypeAlias = Literal["error", "skip"]


@dataclass(frozen=True)
class FileList:
    """The N image files of a split.

    Attributes:
        keys: The path of each file, relative to the root.
        targets: `int64 [N]`, the class of each image, -1 where it is unknown.
        categories: `int64 [N, L]`, the value of each of L category levels, -1 where it is unknown. None: no levels.
    """

    keys: Sequence[str]
    targets: Tensor
    categories: Tensor | None = None


class FileReader:
    """A reader of image files, with a cache or without; `ImageFiles` describes its arguments.

    Raises:
        SettingsError: An argument is out of its domain.
    """

    def __init__(
        self, root: Path, image_size: int, cache_dir: str | None, cache_budget_gb: float, on_bad_image: OnBadImage
    ) -> None:
        check_side("image_size", image_size)
        check_at_least("cache_budget_gb", cache_budget_gb, 0)
        check_choice("on_bad_image", on_bad_image, get_args(OnBadImage))
        self.root = root
        self.image_size = image_size
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.cache_budget_gb = cache_budget_gb
        self.skip_bad = on_bad_image == "skip"

    def read(
        self, lists: Mapping[str, FileList], describe: Callable[[str], str], num_workers: int
    ) -> dict[str, Images]:
        """Read the images of each split, without those that cannot be read and are skipped.

        Args:
            lists: The files of each split.
            describe: A function that gives the name of a file in messages, given its key.
            num_workers: The number of loader processes, which decode the images that are not cached.

        Raises:
            MissingFileError: Files are missing.
            SettingsError: Files cannot be read and are not to be skipped.
        """
        total = sum(len(files.keys) for files in lists.values()) * 3 * self.image_size**2
        cached = total <= self.cache_budget_gb * 1e9
        if not cached and not num_workers:
            rank_zero_warn(
                f"{total / 1e9:.1f} GB of pixels are more than cache_budget_gb {self.cache_budget_gb}, so every "
                "batch is decoded anew, and num_workers is 0: give the number of processes that decode"
            )
        return {name: self._open(files, cached, describe) for name, files in lists.items()}

    def cache_of(self, keys: Sequence[str], describe: Callable[[str], str]) -> tuple[Path, Path]:
        """Give the paths at which `read` caches the pixels and the index of a list of files."""
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
    """A data module of image files. A subclass lists them and sets `class_names` before it calls this `__init__`.

    All files are decoded once, before the first training: into a memory-mapped cache, or, if the set is larger than
    `cache_budget_gb`, only to find those that cannot be read. A larger set is decoded again in every batch, to the
    same pixels, by `num_workers` processes.

    Args:
        root: The folder of the images.
        image_size: The height and width of the images in pixels: the middle square of each is resized to it.
        horizontal_flip: Whether a mirrored image is a valid image of its class.
        mean: The mean of each channel in [0, 1], for the network's normalization. None: ImageNet's.
        std: The standard deviation of each channel, in (0, 1]. None: ImageNet's.
        cache_dir: The folder of the cache. None: `~/.cache/tailmatch`.
        cache_budget_gb: The most disk space that the pixels of this set may take, in gigabytes (1e9 bytes); 0: no
            cache. The default holds ImageNet-LT with its validation and test images at 224 pixels (28 GB).
        on_bad_image: What happens to files that cannot be read: `error` ends the program and names all of them, `skip`
            leaves them out and names them in a warning.
        **kwargs: The other arguments of `LabeledUnlabeledDataModule`.

    Raises:
        SettingsError: An argument is out of its domain.
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
        check_channel_statistics(mean, std)
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
        """List the files of `train`, and of `val` and `test` if the data set has these splits."""

    def take_class_names(self, names: Sequence[str]) -> None:
        """Take the order of the classes from a checkpoint, before `setup`; other classes are left as they are.

        Its version may have sorted them in another way.

        Args:
            names: The names of the classes of the checkpoint.
        """
        if sorted(names) == sorted(self.class_names):
            self.class_names = list(names)

    def describe(self, key: str) -> str:
        """Give the name of a file in messages."""
        return str(self.root / key)

    def prepare_data(self) -> None:
        """Decode the images into the cache, on one process."""
        self.load()

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        if self._sources is None:
            images = self.reader.read(self.list_files(), self.describe, self.num_workers)
            self._sources = Sources(images["train"], val=images.get("val"), test=images.get("test"))
        return self._sources
