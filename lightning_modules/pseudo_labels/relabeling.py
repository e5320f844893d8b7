"""Labels that give way to a teacher's confident disagreement.

Tanaka et al. 2018 (arXiv 1803.11364, section 3.2; DaikiTanaka-UT/JointOptimization `first_step_train.py`) replace all
labels by the network's predictions, their hard-label or soft-label way, every epoch after a first phase of training;
Reed et al. 2015 (arXiv 1412.6596) mix both. Here a threshold leaves the labels that the teacher is not sure of, as for
pseudo-labels, and a later labeling begins again with the given labels, so that a wrong replacement does not stay.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels


def confident_disagreements(given: Tensor, predicted: Tensor, confidence: Tensor, threshold: float) -> Tensor:
    """Which images' labels a prediction contradicts with confidence, `bool [N]`.

    Args:
        given: `int64 [N]` labels.
        predicted: `int64 [N]` predicted classes, -1 for none.
        confidence: `float32 [N]`, their probability.
        threshold: Least confidence.
    """
    return (predicted >= 0) & (predicted != given) & (confidence >= threshold)


@dataclass(frozen=True)
class Relabeling:
    """The labels of a labeled set after a teacher saw it.

    Attributes:
        given: `int64 [N]`.
        predictions: The teacher's, of all images.
        changed: `bool [N]`, whose label is the predicted one.
    """

    given: Tensor
    predictions: PseudoLabels
    changed: Tensor

    @property
    def label(self) -> Tensor:
        """The labels, `int64 [N]`."""
        return torch.where(self.changed, self.predictions.label, self.given)

    def target(self, soft: bool) -> Tensor:
        """What to train on: the labels, or with `soft` `float32 [N, K]`, the teacher's probs where they changed."""
        probs = self.predictions.probs
        if not soft or probs is None:
            return self.label
        target = functional.one_hot(self.given, probs.shape[1]).float()
        target[self.changed] = probs[self.changed]
        return target


def relabel(given: Tensor, predictions: PseudoLabels | None, threshold: float) -> Relabeling:
    """Take the predicted class where it contradicts the given one (`int64 [N]`) with at least this confidence.

    Raises:
        SettingsError: There are no predictions.
    """
    if predictions is None:
        raise SettingsError(
            f"relabel_threshold is {threshold}, and there are no predictions of the labeled images: a run that began "
            "without it cannot be resumed with it"
        )
    changed = confident_disagreements(given, predictions.label, predictions.confidence, threshold)
    return Relabeling(given, predictions, changed)


def check_labeled_predictions(data: LabeledUnlabeledDataModule, threshold: float | None) -> None:
    """Refuse a pseudo-label file whose rows of labeled images do not fit `relabel_threshold`.

    Raises:
        SettingsError: It has none and they are to be relabeled, or it has some for nothing.
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
