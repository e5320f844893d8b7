"""CIFAR-10 and CIFAR-100 through torchvision."""

from typing import Any

import torch
from torchvision import datasets

from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import Images, Sources
from tailmatch.datamodules.public.downloads import files_named_if_missing
from tailmatch.datamodules.splitting.long_tail import ClassCounts, DARPCounts

CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
""".split()
"""The fine labels in their order, `fine_label_names` of the published file `meta`."""


class _CIFAR(LabeledUnlabeledDataModule):
    """50,000 training and 10,000 test images of 32 x 32 pixels (Krizhevsky 2009)."""

    title: str
    reader: Any

    def __init__(self, root: str, **kwargs: Any) -> None:
        self.root = root
        super().__init__(**kwargs)

    def prepare_data(self) -> None:
        """Download the data set if it is not in `root`.

        Raises:
            MissingFileError: The data set is not in `root` and cannot be downloaded.
        """
        with files_named_if_missing(self, self.title, self.reader.filename, self.reader.url, self.root):
            self.reader(self.root, train=True, download=self.may_download)

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        return Sources(train=self._read(train=True), test=self._read(train=False))

    def _read(self, train: bool) -> Images:
        data = self.reader(self.root, train=train)
        return Images(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets))


class CIFAR10(_CIFAR):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in 10 classes (Krizhevsky 2009).

    The data set is downloaded into `root` if it is not there. DARP's largest setting takes 1,500 + 3,000 of the 5,000
    images of a class; the default validation set takes the other 500.

    Args:
        root: The folder that holds `cifar-10-batches-py`, or into which it is downloaded.
        class_counts: How many images of each class become labeled and unlabeled. None: DARP's setting, `DARPCounts()`
            (N1 1500, M1 3000, gamma 100 labeled and unlabeled).
        **kwargs: The other arguments of `LabeledUnlabeledDataModule`.
    """

    title, reader = "CIFAR-10", datasets.CIFAR10
    mean = (0.4914, 0.4822, 0.4465)  # of the training pixels; bbuing9/DARP dataset/all_cifar10.py
    std = (0.2471, 0.2435, 0.2616)
    default_val_holdout = 500

    def __init__(self, root: str = "data", *, class_counts: ClassCounts | None = None, **kwargs: Any) -> None:
        self.class_names = "airplane automobile bird cat deer dog frog horse ship truck".split()
        super().__init__(root, class_counts=class_counts or DARPCounts(), **kwargs)


class CIFAR100(_CIFAR):
    """CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 pixels in 100 classes (Krizhevsky 2009).

    The data set is downloaded into `root` if it is not there. The classes are the fine labels. DARP's setting takes
    300 + 150 of the 500 images of a class; the default validation set takes the other 50.

    Args:
        root: The folder that holds `cifar-100-python`, or into which it is downloaded.
        class_counts: How many images of each class become labeled and unlabeled. None: DARP's setting (bbuing9/DARP
            `run.sh`), N1 300, M1 150, gamma 20 labeled and unlabeled.
        **kwargs: The other arguments of `LabeledUnlabeledDataModule`.
    """

    title, reader = "CIFAR-100", datasets.CIFAR100
    mean = (0.5071, 0.4867, 0.4408)  # of the training pixels; kekmodel/FixMatch-pytorch dataset/cifar.py
    std = (0.2675, 0.2565, 0.2761)
    default_val_holdout = 50

    def __init__(self, root: str = "data", *, class_counts: ClassCounts | None = None, **kwargs: Any) -> None:
        self.class_names = list(CIFAR100_CLASSES)
        super().__init__(root, class_counts=class_counts or DARPCounts(300, 20, 150, 20), **kwargs)
