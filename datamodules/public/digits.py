"""The embedded data set: scikit-learn's handwritten digits."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import Images, Sources


class Digits(LabeledUnlabeledDataModule):
    """1,797 grey images of the digits 0 to 9 (about 180 each), shipped with scikit-learn: nothing to download.

    There is no published split, so test and validation images are held out of each class.

    Args:
        image_size: Height and width in pixels; other than 8 resizes bilinearly.
        **kwargs: The arguments of `LabeledUnlabeledDataModule`.
    """

    mean = (0.305, 0.305, 0.305)  # of all pixels, in [0, 1]
    std = (0.376, 0.376, 0.376)
    horizontal_flip = False
    default_val_holdout = 20
    default_test_holdout = 40

    def __init__(self, image_size: int = 8, **kwargs: Any) -> None:
        self.class_names = [str(digit) for digit in range(10)]
        self.image_size = image_size
        super().__init__(**kwargs)

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        digits = load_digits()
        grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # 0..16 -> 0..255
        size = (self.image_size, self.image_size)
        grey = functional.interpolate(grey, size=size, mode="bilinear", align_corners=False)
        pixels = grey.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
        return Sources(train=Images(pixels, torch.from_numpy(digits.target).long()))
