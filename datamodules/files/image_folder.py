"""Images in a folder, one sub-folder a class."""

from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.folder_layout import folder_layout
from tailmatch.datamodules.files.image_files import FileList, ImageFiles
from tailmatch.datamodules.files.listing import LeftOut, folders_in, has_images, image_files, images_directly_in


class ImageFolder(ImageFiles):
    """Images in `root/train/<class>/`, and if they exist `root/unlabeled/`, `root/val/<class>/`, `root/test/<class>/`.

    The classes are the sub-folders of `train/`, sorted as numbers if all are numbers, else as text. Images in
    `unlabeled/`, at any depth, join the unlabeled set. The folders may also be named `training`, `unlabelled`, `valid`,
    `validation` and `testing`. Without `train/`, `val/` and `test/`, the folders in `root` that have images are the
    classes; a tenth of each is then held out for validation and a fifth for the test, unless `val_holdout` and
    `test_holdout` say otherwise.

    Hidden files and folders, whose names begin with a dot, are never data. Whatever else is left out is counted in one
    warning: files of other kinds, links to folders, images outside of the class folders, other folders of images. A
    `val/` or `test/` of images without class folders has no labels, and is not used.

    Args:
        root: The folder that holds `train/`.
        **kwargs: The other arguments of `ImageFiles`.

    Raises:
        MissingFileError: There are no class folders (the message says what there is), or the folder of a split or a
            class is a link that leads nowhere.
        SettingsError: A class folder has no images, `val` or `test` has a class that `train` lacks, or an image
            cannot be read.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        self.layout = folder_layout(Path(root))
        self.class_names = self.layout.class_names
        if self.layout.splits["train"] == ".":
            self.default_val_holdout, self.default_test_holdout = 0.1, 0.2  # as of a table without splits
        super().__init__(root, **kwargs)

    def list_files(self) -> dict[str, FileList]:
        """See `ImageFiles.list_files`."""
        splits, left_out = self.layout.splits, LeftOut()
        keys, targets = self._labeled_files(splits["train"], left_out)
        pool = image_files(self.root, splits["unlabeled"], left_out) if "unlabeled" in splits else []
        lists = {"train": FileList(keys + pool, torch.tensor(targets + [-1] * len(pool)))}
        for split in ("val", "test"):
            if split in splits and self._has_classes(split):
                keys, targets = self._labeled_files(splits[split], left_out)
                lists[split] = FileList(keys, torch.tensor(targets))
        if splits["train"] == ".":
            left_out.empty += self.layout.others
            rank_zero_warn(
                f"{self.root} has no folder train, so its {self.num_classes} folders with images are the classes; of "
                f"each, val_holdout {self.val_holdout:g} and test_holdout {self.test_holdout:g} are held out"
            )
        else:
            left_out.folders += [name for name in self.layout.others if has_images(self.root / name)]
        left_out.warn(self.root)
        return lists

    def _has_classes(self, split: str) -> bool:
        """Tell whether a split has class folders; say so where it has images without."""
        folder = self.root / self.layout.splits[split]
        if folders_in(folder):
            return True
        loose = images_directly_in(folder)
        if not loose:
            raise SettingsError(f"{folder} has no class folders and no images: put some into <class>/, or remove it")
        rank_zero_warn(
            f"{folder} has {loose} images and no class folders, so their classes are unknown and it is not used: to "
            f"predict them, use UnlabeledImages; {split}_holdout holds out training images instead"
        )
        return False

    def _labeled_files(self, folder: str, left_out: LeftOut) -> tuple[list[str], list[int]]:
        place = self.root / folder
        names = self.class_names if folder == "." else folders_in(place)
        numbers = {name: k for k, name in enumerate(self.class_names)}
        unknown = sorted(set(names) - set(numbers))
        if unknown:
            raise SettingsError(
                f"{place} has class folders {unknown}, and {self.layout.splits['train']}/ has {self.class_names}: "
                "rename or remove them (to predict images without classes: UnlabeledImages)"
            )
        left_out.add_loose(place)
        keys: list[str] = []
        targets: list[int] = []
        for name in sorted(names, key=numbers.__getitem__):
            out = LeftOut()
            found = image_files(self.root, name if folder == "." else f"{folder}/{name}", out)
            if not found:
                has = f" (it has {out})" if str(out) else ""
                raise SettingsError(f"class folder {place / name} has no images{has}: add some or remove it")
            left_out.suffixes += out.suffixes
            left_out.links += out.links
            keys += found
            targets += [numbers[name]] * len(found)
        return keys, targets
