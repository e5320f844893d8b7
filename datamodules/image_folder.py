"""A folder of image files, one sub-folder a class."""

from pathlib import Path
from typing import Any

import torch

from datamodules.image_cache import IMAGE_SUFFIXES, cached_images, default_cache_dir
from datamodules.images import Images, Sources
from datamodules.labeled_unlabeled import LabeledUnlabeledDataModule


class ImageFolder(LabeledUnlabeledDataModule):
    """`root/train/<class>/`, and where they exist `root/unlabeled/`, `root/val/<class>/`, `root/test/<class>/`.

    Images are decoded and resized once, into a memory-mapped cache. Images in `unlabeled/` (at any depth)
    join the unlabeled set. Classes are the sub-folders of `train/` in alphabetical order.

    Args:
        root: The folder.
        image_size: Height and width that images are brought to: shorter side resized, middle cropped.
        horizontal_flip: Whether a mirrored image is a valid image of its class.
        mean: Channel means in [0, 1] for the network's normalization (default: ImageNet's).
        std: Channel standard deviations.
        cache_dir: Folder of the cache; None is `~/.cache/tailmatch`.
        **kwargs: The arguments of `LabeledUnlabeledDataModule`.

    Raises:
        FileNotFoundError: `root/train` is missing or has no class folders.
        ValueError: A class folder has no images, `val` or `test` has a class that `train` lacks, or an image
            cannot be read.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 32,
        horizontal_flip: bool = True,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.image_size = image_size
        self.horizontal_flip = horizontal_flip
        self.mean = mean or self.mean
        self.std = std or self.std
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        train = self.root / "train"
        self.class_names = sorted(p.name for p in train.iterdir() if p.is_dir()) if train.is_dir() else []
        if not self.class_names:
            raise FileNotFoundError(
                f"no class folders in {train.resolve()}: put the images of each class into "
                f"{train}/<class>/, for example {train}/cat/1.jpg"
            )
        super().__init__(**kwargs)

    def prepare_data(self) -> None:
        """Build the caches, on one process."""
        self.load()

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        files, targets = self._labeled_files("train")
        pool = _image_files(self.root / "unlabeled")
        files += pool
        train = Images(
            cached_images(files, self.image_size, self.cache_dir),
            torch.tensor(targets + [-1] * len(pool)),
            keys=tuple(file.relative_to(self.root).as_posix() for file in files),
            file_sizes=torch.tensor([file.stat().st_size for file in files]),
        )
        return Sources(train, val=self._own_split("val"), test=self._own_split("test"))

    def _own_split(self, name: str) -> Images | None:
        if not (self.root / name).is_dir():
            return None
        files, targets = self._labeled_files(name)
        return Images(cached_images(files, self.image_size, self.cache_dir), torch.tensor(targets))

    def _labeled_files(self, split: str) -> tuple[list[Path], list[int]]:
        folder = self.root / split
        names = sorted(p.name for p in folder.iterdir() if p.is_dir())
        unknown = sorted(set(names) - set(self.class_names))
        if unknown or not names:
            raise ValueError(
                f"{folder} has class folders {unknown or names}, and train/ has {self.class_names}: "
                "rename or remove them"
            )
        files: list[Path] = []
        targets: list[int] = []
        for name in names:
            found = _image_files(folder / name)
            if not found:
                raise ValueError(f"class folder {folder / name} has no images: add some or remove it")
            files += found
            targets += [self.class_names.index(name)] * len(found)
        return files, targets


def _image_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
