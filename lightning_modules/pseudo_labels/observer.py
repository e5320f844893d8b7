"""The interface of callbacks that watch the labels of self-training."""

from typing import Protocol

from torch import Tensor

from tailmatch.datamodules.images import ImageRows
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.pseudo_labels.relabeling import Relabeling


class SelfTrainingObserver(Protocol):
    """A callback that is told, on every process, when `SelfTraining` gets new labels."""

    def observe_selection(self, method: ImageClassifier, selected: Tensor, counts: Tensor) -> None:
        """Receive the selection of pseudo-labels.

        Args:
            method: The method that will train on them.
            selected: Whether each unlabeled image is used in the loss, `bool [N]`.
            counts: Number of selected images of each class, `int64 [K]`.
        """

    def observe_relabeling(self, method: ImageClassifier, relabeling: Relabeling, rows: ImageRows) -> None:
        """Receive the relabeling of the labeled images. This is only called with `relabel_threshold`.

        Args:
            method: The method that will train on the labels.
            relabeling: Given labels, predictions, and which labels were replaced.
            rows: The labeled images.
        """
