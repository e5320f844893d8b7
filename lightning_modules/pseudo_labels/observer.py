"""The interface of callbacks that watch the labels of self-training."""

from typing import Protocol

from torch import Tensor

from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.pseudo_labels.relabeling import Relabeling


class SelfTrainingObserver(Protocol):
    """A callback that is told, on every process, when `SelfTraining` gets new labels."""

    def observe_selection(self, method: ImageClassifier, labels: PseudoLabels, selected: Tensor) -> None:
        """Receive the selection of pseudo-labels.

        Args:
            method: The method that will train on them.
            labels: Pseudo-labels of the N unlabeled images.
            selected: Whether each is used in the loss, `bool [N]`.
        """

    def observe_relabeling(self, method: ImageClassifier, relabeling: Relabeling, rows: ImageRows) -> None:
        """Receive the relabeling of the labeled images. This is only called with `relabel_threshold`.

        Args:
            method: The method that will train on the labels.
            relabeling: Given labels, predictions, and which labels were replaced.
            rows: The labeled images.
        """
