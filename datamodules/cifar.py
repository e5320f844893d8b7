"""CIFAR-10 through torchvision."""

from pathlib import Path
from typing import Any

import torch
from torchvision import datasets

from datamodules.images import Images, Sources
from datamodules.labeled_unlabeled import LabeledUnlabeledDataModule
from datamodules.long_tail import ClassCounts, DARPCounts


class CIFAR10(LabeledUnlabeledDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in 10 classes (Krizhevsky 2009).

    Downloaded into `root` where there is a network. DARP's largest setting asks for 1,500 + 3,000 of the
    5,000 images of a class; the default validation set takes the other 500.

    Args:
        root: Folder that holds `cifar-10-batches-py`, or will.
        class_counts: None is DARP's setting, gamma 100 labeled and unlabeled.
        **kwargs: The other arguments of `LabeledUnlabeledDataModule`.
    """

    mean = (0.4914, 0.4822, 0.4465)  # of the training pixels; bbuing9/DARP dataset/all_cifar10.py
    std = (0.2471, 0.2435, 0.2616)
    default_val_holdout = 500

    def __init__(self, root: str = "data", class_counts: ClassCounts | None = None, **kwargs: Any) -> None:
        self.class_names = "airplane automobile bird cat deer dog frog horse ship truck".split()
        self.root = root
        super().__init__(class_counts=class_counts or DARPCounts(), **kwargs)

    def prepare_data(self) -> None:
        """Download the data if it is not there.

        Raises:
            FileNotFoundError: It is not there and cannot be downloaded.
        """
        try:
            datasets.CIFAR10(self.root, train=True, download=True)
        except (OSError, RuntimeError) as error:
            folder = Path(self.root).resolve() / datasets.CIFAR10.base_folder
            raise FileNotFoundError(
                f"CIFAR-10 is not in {folder} and could not be downloaded ({error}): put "
                f"{datasets.CIFAR10.filename} from {datasets.CIFAR10.url} into {folder.parent} and run again"
            ) from error

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        return Sources(train=self._read(train=True), test=self._read(train=False))

    def _read(self, train: bool) -> Images:
        data = datasets.CIFAR10(self.root, train=train)
        return Images(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets))
