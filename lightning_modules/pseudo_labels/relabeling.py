"""Relabeling: a teacher's confident predictions replace the labels that they contradict.

Tanaka et al. 2018 (arXiv 1803.11364, section 3.2; DaikiTanaka-UT/JointOptimization `first_step_train.py`) replace all
labels by the network's predictions (hard or soft labels) in every epoch after a first phase of training. Reed et al.
2015 (arXiv 1412.6596) mix labels and predictions. Here, labels stay where the teacher's confidence is below a
threshold, as for pseudo-labels. Each relabeling starts from the given labels, so that a wrong replacement is not
permanent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels


def confident_disagreements(given: Tensor, predicted: Tensor, confidence: Tensor, threshold: float) -> Tensor:
    """Find the labels that a confident prediction contradicts, as `bool [N]`.

    Args:
        given: Given labels, `int64 [N]`.
        predicted: Predicted classes, `int64 [N]`, -1 for no prediction.
        confidence: Probability of the predicted classes, `float32 [N]`.
        threshold: Smallest confidence of a prediction that counts.
    """
    return (predicted >= 0) & (predicted != given) & (confidence >= threshold)


@dataclass(frozen=True)
class Relabeling:
    """The labels of a labeled set after a relabeling.

    Attributes:
        given: Given labels, `int64 [N]`.
        predictions: The teacher's predictions of all images.
        changed: Whether each label was replaced by the predicted class, `bool [N]`.
    """

    given: Tensor
    predictions: PseudoLabels
    changed: Tensor

    @property
    def label(self) -> Tensor:
        """The labels after the relabeling, `int64 [N]`."""
        return torch.where(self.changed, self.predictions.label, self.given)

    def target(self, soft: bool) -> Tensor:
        """Return the targets of a training.

        Args:
            soft: Whether a replaced label becomes the teacher's probabilities, where these are known.

        Returns:
            Classes `int64 [N]`, or with `soft` probabilities `float32 [N, K]`.
        """
        probs = self.predictions.probs
        if not soft or probs is None:
            return self.label
        target = functional.one_hot(self.given, probs.shape[1]).float()
        target[self.changed] = probs[self.changed]
        return target


def relabel(given: Tensor, predictions: PseudoLabels | None, threshold: float) -> Relabeling:
    """Replace the given labels that predictions contradict with at least the confidence `threshold`.

    Args:
        given: Given labels, `int64 [N]`.
        predictions: The teacher's predictions of all images, or None if there are none.
        threshold: Smallest confidence of a prediction that replaces a label.

    Raises:
        SettingsError: `predictions` is None.
    """
    if predictions is None:
        raise SettingsError(
            f"relabel_threshold is {threshold}, and there are no predictions of the labeled images: a run that began "
            "without it cannot be resumed with it"
        )
    changed = confident_disagreements(given, predictions.label, predictions.confidence, threshold)
    return Relabeling(given, predictions, changed)


def check_labeled_predictions(data: LabeledUnlabeledDataModule, threshold: float | None) -> None:
    """Refuse a pseudo-label file that lacks predictions of labeled images, or has some that would not be used.

    Args:
        data: Data module with `pseudo_labels`.
        threshold: The method's `relabel_threshold`, or None.

    Raises:
        SettingsError: The threshold is given without predictions of labeled images, or these without a threshold.
    """
    if threshold is not None and data.labeled_predictions is None:
        raise SettingsError(
            f"relabel_threshold is {threshold}, and pseudo_labels {data.pseudo_label_file} has no labeled images: "
            "predict them too, with tailmatch predict --data.predict_set pool"
        )
    if threshold is None and data.labeled_predictions is not None and not data.include_labeled_in_unlabeled:
        raise SettingsError(
            f"pseudo_labels {data.pseudo_label_file} has images that are labeled here, and they would not be used: "
            "set relabel_threshold to relabel them, or predict the unlabeled ones alone (--data.predict_set "
            "unlabeled) with the seed, class_counts and holdouts of this run"
        )
