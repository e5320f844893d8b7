"""Handwritten digits that come with the package.

`digits.npz` holds the test part of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, CC BY
4.0), the same images in the same order as scikit-learn's `load_digits`; `digits.license.txt` says more.
"""

from importlib import resources
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tailmatch.datamodules.arguments import check_count
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import Images, Sources


class Digits(LabeledUnlabeledDataModule):
    """1,797 gray images of the digits 0 to 9, about 180 of each, which come with the package: nothing to download.

    No split is published, so test and validation images are held out of each class.

    Args:
        image_size: The height and width of the images in pixels. Any size but 8 resizes them bilinearly.
        **kwargs: The arguments of `LabeledUnlabeledDataModule`.

    Raises:
        SettingsError: `image_size` is below 1.
    """

    mean = (0.305, 0.305, 0.305)  # of all pixels, in [0, 1]
    std = (0.376, 0.376, 0.376)
    horizontal_flip = False
    default_val_holdout = 20
    default_test_holdout = 40

    def __init__(self, image_size: int = 8, **kwargs: Any) -> None:
        check_count("image_size", image_size)
        self.class_names = [str(digit) for digit in range(10)]
        self.image_size = image_size
        super().__init__(**kwargs)

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        with resources.files(__package__).joinpath("digits.npz").open("rb") as file, np.load(file) as digits:
            images, target = digits["images"], digits["target"]
        grey = torch.from_numpy(images).float()[:, None] * (255 / 16)  # 0..16 -> 0..255
        size = (self.image_size, self.image_size)
        grey = functional.interpolate(grey, size=size, mode="bilinear", align_corners=False)
        pixels = grey.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
        return Sources(train=Images(pixels, torch.from_numpy(target).long()))
