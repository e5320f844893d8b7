"""SVHN through torchvision (which reads its files with scipy, a dependency of scikit-learn)."""

from typing import Any

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import download_url

from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import Images, Sources
from tailmatch.datamodules.public.downloads import files_named_if_missing
from tailmatch.datamodules.splitting.long_tail import ClassCounts, SemiSelfCounts

ADDRESS = "http://ufldl.stanford.edu/housenumbers"


class SVHN(LabeledUnlabeledDataModule):
    """House numbers: 73,257 training, 26,032 test and 531,131 extra images of 32 x 32 pixels (Netzer et al. 2011).

    Downloaded into `root` where there is a network. Classes are in the order 1, 2, ..., 9, 0, so that the rarest class
    of a long tail is the digit 0, as in imbalanced-semi-self (arXiv 2006.07529; YyzHarry/imbalanced-semi-self
    `dataset/imbalance_svhn.py`). Its unlabeled images are drawn from `extra`, by their class, which training does not
    see: 1.6 GB in memory, and twice that while they are read.

    Args:
        root: Folder that holds `train_32x32.mat`, `test_32x32.mat` and `extra_32x32.mat`, or will.
        extra: Draw the unlabeled images from `extra`. False: from what the labeled ones leave of the training images,
            and `extra` is not needed. The labeled images are the same.
        class_counts: None is imbalanced-semi-self's setting: 1,000 to 10 labeled images a class, and 5 times as many
            unlabeled ones, both with rho 0.01.
        **kwargs: The other arguments of `LabeledUnlabeledDataModule`.
    """

    mean = (0.4377, 0.4438, 0.4728)  # of the training pixels; Gank0078/ACR dataset/cifar.py
    std = (0.1980, 0.2010, 0.1970)
    horizontal_flip = False  # a mirrored digit is none, or another
    default_val_holdout = 500  # of each class, as many as of CIFAR-10

    def __init__(
        self, root: str = "data", *, extra: bool = True, class_counts: ClassCounts | None = None, **kwargs: Any
    ) -> None:
        self.class_names = list("1234567890")
        self.root = root
        self.extra = extra
        super().__init__(class_counts=class_counts or SemiSelfCounts(labeled_max=1000), **kwargs)

    def prepare_data(self) -> None:
        """Download the data if it is not there.

        Raises:
            FileNotFoundError: It is not there and cannot be downloaded.
        """
        published = [datasets.SVHN.split_list[split] for split in ("train", "test", "extra")[: 2 + self.extra]]
        files = ", ".join(file for _, file, _ in published)
        with files_named_if_missing("SVHN", files, ADDRESS, self.root):
            for url, file, md5 in published:
                download_url(url, self.root, file, md5)

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        train, test = [self._read("train")], self._read("test")
        if self.extra:
            train.append(self._read("extra"))
        pixels, targets = zip(*train, strict=True)
        return Sources(
            train=Images(torch.cat(pixels), torch.cat(targets)),
            test=Images(test[0].contiguous(), test[1]),
            unlabeled_from=len(targets[0]) if self.extra else None,
        )

    def _read(self, split: str) -> tuple[Tensor, Tensor]:
        data = datasets.SVHN(self.root, split=split)
        digits = torch.from_numpy(data.labels)
        return torch.from_numpy(data.data), (digits - 1) % 10  # digit 1 is class 0, digit 0 is class 9
