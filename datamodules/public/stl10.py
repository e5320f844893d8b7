"""STL-10 through torchvision."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import datasets

from tailmatch.datamodules.arguments import check_count
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import Images, Sources
from tailmatch.datamodules.public.downloads import files_named_if_missing
from tailmatch.datamodules.splitting.long_tail import ClassCounts, DARPCounts

CHUNK = 1000
"""How many images are resized at a time."""


class STL10(LabeledUnlabeledDataModule):
    """STL-10: 5,000 training, 8,000 test and 100,000 unlabeled images of 96 x 96 pixels (Coates et al. 2011).

    The data set is downloaded into `root` if it is not there. All 100,000 images of unknown class are in the unlabeled
    set, beside those that `class_counts` draws from the training images. The data set takes 3.1 GB of memory at 96
    pixels and 0.35 GB at 32, and 2.8 GB more while it is read.

    DARP's setting takes 450 of the 500 training images of a class; the default validation set takes the other 50.

    Args:
        root: The folder that holds `stl10_binary`, or into which it is downloaded.
        image_size: The height and width of the images in pixels. Any size but 96 resizes them bilinearly, as Pillow
            does. The papers on long tails take 32 (bbuing9/DARP `dataset/all_stl10.py`).
        class_counts: How many training images of each class become labeled and unlabeled. None: DARP's setting
            (bbuing9/DARP `run.sh`), N1 450, gamma 20, no training image unlabeled.
        **kwargs: The other arguments of `LabeledUnlabeledDataModule`.

    Raises:
        SettingsError: `image_size` is below 1.
    """

    mean = (0.4408, 0.4278, 0.3867)  # TorchSSL/TorchSSL datasets/ssl_dataset.py: 112.4, 109.1, 98.6 of 255
    std = (0.2682, 0.2612, 0.2686)  # 68.4, 66.6, 68.5 of 255
    default_val_holdout = 50

    def __init__(
        self, root: str = "data", *, image_size: int = 96, class_counts: ClassCounts | None = None, **kwargs: Any
    ) -> None:
        check_count("image_size", image_size)
        self.class_names = "airplane bird car cat deer dog horse monkey ship truck".split()
        self.root = root
        self.image_size = image_size
        super().__init__(class_counts=class_counts or DARPCounts(450, 20, unlabeled_max=0), **kwargs)

    def prepare_data(self) -> None:
        """Download the data set if it is not in `root`.

        Raises:
            MissingFileError: The data set is not in `root` and cannot be downloaded.
        """
        with files_named_if_missing(self, "STL-10", datasets.STL10.filename, datasets.STL10.url, self.root):
            datasets.STL10(self.root, split="train", download=self.may_download)

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        return Sources(train=self._read("train", "unlabeled"), test=self._read("test"))

    def _read(self, *splits: str) -> Images:
        data = [datasets.STL10(self.root, split=split) for split in splits]
        chunks = [chunk for part in data for chunk in torch.split(torch.from_numpy(part.data), CHUNK)]
        targets = [torch.from_numpy(part.labels).long() for part in data]  # -1 in the unlabeled part
        return Images(torch.cat([self._resized(chunk) for chunk in chunks]), torch.cat(targets))

    def _resized(self, pixels: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        if pixels.shape[-2:] == size:
            return pixels
        return functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
