"""Images in a folder, one sub-folder a class."""

import os
from pathlib import Path
from typing import Any

import torch

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.class_names import sorted_names
from tailmatch.datamodules.files.decoding import IMAGE_SUFFIXES
from tailmatch.datamodules.files.image_files import FileList, ImageFiles


class ImageFolder(ImageFiles):
    """Images in `root/train/<class>/`, and if they exist `root/unlabeled/`, `root/val/<class>/`, `root/test/<class>/`.

    The classes are the sub-folders of `train/`, sorted as numbers if all are numbers, else as text. Images in
    `unlabeled/`, at any depth, join the unlabeled set. Hidden files and folders, whose names begin with a dot, are left
    out.

    Args:
        root: The folder that holds `train/`.
        **kwargs: The other arguments of `ImageFiles`.

    Raises:
        MissingFileError: `root/train` is missing or has no class folders.
        SettingsError: A class folder has no images, `val` or `test` has a class that `train` lacks, or an image
            cannot be read.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        train = Path(root, "train")
        self.class_names = class_folders(train) if train.is_dir() else []
        if not self.class_names:
            given = "" if Path(root).is_dir() else f"root {Path(root).resolve()} is no folder, so there are "
            raise MissingFileError(
                f"{given}no class folders in {train.resolve()}: put the images of each class into "
                f"{train}/<class>/, for example {train}/cat/1.jpg (to predict a folder of images: UnlabeledImages)"
            )
        super().__init__(root, **kwargs)

    def list_files(self) -> dict[str, FileList]:
        """See `ImageFiles.list_files`."""
        keys, targets = self._labeled_files("train")
        pool = image_files(self.root, "unlabeled")
        lists = {"train": FileList(keys + pool, torch.tensor(targets + [-1] * len(pool)))}
        for split in ("val", "test"):
            if (self.root / split).is_dir():
                keys, targets = self._labeled_files(split)
                lists[split] = FileList(keys, torch.tensor(targets))
        return lists

    def _labeled_files(self, split: str) -> tuple[list[str], list[int]]:
        folder = self.root / split
        names = class_folders(folder)
        unknown = sorted(set(names) - set(self.class_names))
        if unknown or not names:
            raise SettingsError(
                f"{folder} has class folders {unknown or names}, and train/ has {self.class_names}: "
                "rename or remove them"
            )
        keys: list[str] = []
        targets: list[int] = []
        for name in sorted(names, key=self.class_names.index):
            found = image_files(self.root, f"{split}/{name}")
            if not found:
                raise SettingsError(f"class folder {folder / name} has no images: add some or remove it")
            keys += found
            targets += [self.class_names.index(name)] * len(found)
        return keys, targets


def class_folders(folder: Path) -> list[str]:
    """List the names of the folders in a folder without hidden ones: sorted as numbers if all are, else as text."""
    return sorted_names(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_files(root: Path, folder: str) -> list[str]:
    """List the image files in `root/folder` at any depth: sorted paths relative to `root`, `/` between folders.

    Hidden files and folders, whose names begin with a dot, are left out, and links to folders are not followed.

    Raises:
        OSError: The system refuses to list a folder. A folder that is missing has no images.
    """
    found = []
    for parent, folders, names in os.walk(root / folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(parent, root).replace(os.sep, "/") + "/"
        found += [
            ("" if inside == "./" else inside) + name
            for name in names
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    return sorted(found, key=lambda key: key.split("/"))


def _refuse(error: OSError) -> None:
    """Raise an error that `os.walk` would pass over in silence."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
