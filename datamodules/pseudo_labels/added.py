"""Unlabeled images that join the labeled set with a pseudo-label, as between the generations of CReST."""

from pathlib import Path

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.datamodules.pseudo_labels.matching import within
from tailmatch.datamodules.pseudo_labels.selection import class_ranks
from tailmatch.datamodules.splitting.class_ranks import class_ranks as ranks_of_classes


class AddedLabels:
    """Pseudo-labels of a file, with which unlabeled images join the labeled set: `data.added_labels`.

    The images stay unlabeled ones, too. Every method then trains on more labels, with their class counts. The file is a
    part of the data: tests and predictions of the run read it, too, since these counts are those of the training.

    With an `alpha`, the images are those of CReST (Wei et al., CVPR 2021, arXiv 2102.09559; google-research/crest
    `data/cifar.py`): of the images that are predicted as the class with the l-th most labels, the most confident
    `floor(count * (n_(K + 1 - l) / n_1)^alpha)`, where n_1 >= ... >= n_K are the counts of the given labels. So of the
    rarest class all predictions are added, since these are few and mostly right, and of frequent classes only a part.
    The authors rank classes by their number. Every generation begins with the given labels alone.

    Args:
        file: Pseudo-label file of `tailmatch predict` or `label`. Rows of labeled images are not used.
        alpha: Exponent, at least 0, of the share of each class; the authors' is 1/3 (their `alpha` is 3), and 0.7 for
            ImageNet-127. None adds all images of the file, such as one that `tailmatch select` wrote.

    Raises:
        SettingsError: `alpha` is negative.
    """

    def __init__(self, file: str, alpha: float | None = None) -> None:
        if alpha is not None:
            check_at_least("added_labels: alpha", alpha, 0)
        self.file = Path(file)
        self.alpha = alpha

    def check_alone(self, **others: object) -> None:
        """Refuse arguments of the data module that give labels, too.

        Raises:
            SettingsError: One of them is not None.
        """
        for name, value in others.items():
            if value is not None:
                raise SettingsError(f"added_labels and {name} are both given: leave one of them out")

    def read(self, labeled: ImageRows, unlabeled: ImageRows, class_names: list[str]) -> tuple[Tensor, Tensor]:
        """Read the file, and choose the images to add.

        Args:
            labeled: The labeled images.
            unlabeled: The unlabeled images, without labeled ones.
            class_names: The names of the K classes.

        Returns:
            The places of the images in the unlabeled set, `int64 [n]`, and their labels, `int64 [n]`.

        Raises:
            MissingFileError: There is no such file.
            SettingsError: It is no pseudo-label file or one of other data, or no image is added.
        """
        file = read_pseudo_labels(self.file)
        try:
            labels = within(file, unlabeled.images).align(unlabeled, class_names, beside=labeled)
        except ValueError as error:
            raise SettingsError(f"added_labels {self.file} does not fit the data: {error}") from error
        chosen = self.choose(labels, torch.bincount(labeled.targets, minlength=len(class_names)))
        if not len(chosen):
            raise SettingsError(f"added_labels {self.file}: no image is added; alpha is {self.alpha}")
        return chosen, labels.label[chosen]

    def choose(self, labels: PseudoLabels, class_counts: Tensor) -> Tensor:
        """Choose the images to add, `int64 [n]` in their order.

        Args:
            labels: Pseudo-labels of the unlabeled images; those without one have -1.
            class_counts: Counts of the given labels, `[K]`.
        """
        given = (labels.label >= 0).nonzero().squeeze(1)
        if self.alpha is None:
            return given
        label, confidence = labels.label[given], labels.confidence[given]
        counts = torch.bincount(label, minlength=len(class_counts))
        most = (counts * rank_shares(class_counts, self.alpha)).floor()
        everywhere = torch.ones_like(given, dtype=torch.bool)
        rank = class_ranks(label.numpy(), confidence.numpy(), everywhere.numpy(), given.numpy())
        return given[torch.from_numpy(rank) < most[label]]


def rank_shares(class_counts: Tensor, alpha: float) -> Tensor:
    """Compute the share of the images predicted as each class that is added, `float64 [K]`.

    That of the class of rank l is `(n_(K + 1 - l) / n_1)^alpha`.

    Args:
        class_counts: Labeled images of each class, `[K]`.
        alpha: Exponent, at least 0.
    """
    falling = class_counts.double().sort(descending=True).values
    mirrored = falling.flip(0)[ranks_of_classes(class_counts)]
    return (mirrored / falling[0]) ** alpha
