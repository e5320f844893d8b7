"""Who is told of the labels that self-training is given."""

from typing import Protocol

from torch import Tensor

from tailmatch.datamodules.images import ImageRows
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.pseudo_labels.relabeling import Relabeling


class SelfTrainingObserver(Protocol):
    """Something that is told at each labeling, on every process, what `SelfTraining` trains on from then on."""

    def observe_selection(self, method: ImageClassifier, selected: Tensor, counts: Tensor) -> None:
        """Which unlabeled images teach: `selected bool [N]`, and how many of each class, `counts int64 [K]`."""

    def observe_relabeling(self, method: ImageClassifier, relabeling: Relabeling, rows: ImageRows) -> None:
        """Which labels of the labeled images, `rows`, were replaced; only with `relabel_threshold`."""
