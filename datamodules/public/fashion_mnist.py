"""Fashion-MNIST through torchvision."""

from pathlib import Path
from typing import Any

from torchvision import datasets

from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import Images, Sources
from tailmatch.datamodules.public.downloads import files_named_if_missing
from tailmatch.datamodules.splitting.long_tail import ClassCounts, DARPCounts


class FashionMNIST(LabeledUnlabeledDataModule):
    """Fashion-MNIST: 60,000 training and 10,000 test images of 28 x 28 gray pixels in 10 classes (Xiao et al. 2017).

    The data set is downloaded into `root` if it is not there. Mirrored images are valid: all shoes in it point to the
    left, and a shoe that points to the right is a shoe, too.

    Args:
        root: The folder that holds `FashionMNIST/raw` with the four published files, packed or not, or into which they
            are downloaded.
        class_counts: How many images of each class become labeled and unlabeled. None: DARP's setting for CIFAR-10,
            `DARPCounts()`, since no long tail of this data set is published.
        **kwargs: The other arguments of `LabeledUnlabeledDataModule`.
    """

    mean = (0.2860, 0.2860, 0.2860)  # of the training pixels, in [0, 1]
    std = (0.3530, 0.3530, 0.3530)
    default_val_holdout = 500  # of each class, as many as of CIFAR-10

    def __init__(self, root: str = "data", *, class_counts: ClassCounts | None = None, **kwargs: Any) -> None:
        self.class_names = list(datasets.FashionMNIST.classes)
        self.root = root
        super().__init__(class_counts=class_counts or DARPCounts(), **kwargs)

    def prepare_data(self) -> None:
        """Download the data set if it is not in `root`.

        Raises:
            MissingFileError: The data set is not in `root` and cannot be downloaded.
        """
        reader = datasets.FashionMNIST
        files = ", ".join(name for name, _ in reader.resources)
        folder = Path(self.root) / reader.__name__ / "raw"
        files = f"{files} (or the same unpacked, if they were packed anew: then their checksums differ)"
        with files_named_if_missing(self, "Fashion-MNIST", files, reader.mirrors[0], folder):
            reader(self.root, download=self.may_download)

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        return Sources(train=self._read(train=True), test=self._read(train=False))

    def _read(self, train: bool) -> Images:
        data = datasets.FashionMNIST(self.root, train=train)
        return Images(data.data[:, None].expand(-1, 3, -1, -1).contiguous(), data.targets)
