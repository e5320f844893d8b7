"""SVHN through torchvision, which reads its files with scipy."""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity, download_url

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import Images, Sources
from tailmatch.datamodules.public.downloads import files_named_if_missing
from tailmatch.datamodules.splitting.long_tail import ClassCounts, SemiSelfCounts

ADDRESS = "http://ufldl.stanford.edu/housenumbers"


class SVHN(LabeledUnlabeledDataModule):
    """SVHN: 73,257 training, 26,032 test and 531,131 extra images of 32 x 32 pixels in 10 classes (Netzer et al. 2011).

    The data set is downloaded into `root` if it is not there; its files need scipy (`pip install 'tailmatch[svhn]'`).
    The classes are the digits in the order 1, 2, ..., 9, 0, so that the rarest class of a long tail is the digit 0, as
    in imbalanced-semi-self (arXiv 2006.07529; YyzHarry/imbalanced-semi-self `dataset/imbalance_svhn.py`). The unlabeled
    images are drawn from the part `extra` by their class, which training does not see. `extra` takes 1.6 GB of memory,
    and twice that while it is read.

    Args:
        root: The folder that holds `train_32x32.mat`, `test_32x32.mat` and `extra_32x32.mat`, or into which they are
            downloaded.
        extra: Whether the unlabeled images are drawn from `extra`. False: they are drawn from the training images that
            are not labeled, and `extra` is not needed. The labeled images are the same either way.
        class_counts: How many images of each class become labeled and unlabeled. None: imbalanced-semi-self's setting,
            1,000 to 10 labeled images a class and 5 times as many unlabeled ones, both with rho 0.01.
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
        """Download the data set if it is not in `root`.

        Raises:
            MissingFileError: The data set is not in `root` and cannot be downloaded.
            SettingsError: scipy is not installed.
        """
        if find_spec("scipy") is None:  # before a download of 1.5 GB, not after it
            raise SettingsError("SVHN's files need scipy: pip install 'tailmatch[svhn]'")
        published = [datasets.SVHN.split_list[split] for split in ("train", "test", "extra")[: 2 + self.extra]]
        files = ", ".join(file for _, file, _ in published)
        with files_named_if_missing(self, "SVHN", files, ADDRESS, self.root):
            for url, file, md5 in published:
                if self.may_download:
                    download_url(url, self.root, file, md5)
                elif not check_integrity(f"{self.root}/{file}", md5):
                    raise FileNotFoundError(f"there is no complete {file}")

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
