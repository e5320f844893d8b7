"""Classifiers whose weights another project published."""

from typing import Any

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.class_order import published_order
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.networks.pretrained import load_classifier


class PublishedClassifier(ImageClassifier):
    """A classifier with the weights of another project's file, for validation, test and prediction.

    The whole network comes from the file, its head included: class d of the file is the class d of the data, or the
    digit d where the classes are digits. `pretrained` of the other methods takes the backbone alone, to train it.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        weights: Path or URL of a state dict, or of a checkpoint that contains one, such as the released classifiers of
            YyzHarry/imbalanced-semi-self. No code in it is executed.
        **kwargs: Other arguments of `ImageClassifier`. `network` needs the `mean` and `std` of the published training.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    brings_weights = True

    def __init__(self, num_classes: int, weights: str, *, ema_decay: float | None = None, **kwargs: Any) -> None:
        super().__init__(num_classes, ema_decay=ema_decay, **kwargs)
        self.weights: str | None = weights
        self.source = weights

    def setup(self, stage: str) -> None:
        """Load the weights, once.

        Raises:
            SettingsError: The stage is `fit`, the network has no `mean` and `std`, or the file does not fit it.
        """
        if stage == "fit":
            raise SettingsError(
                "PublishedClassifier is evaluated as it was published: use test, validate or predict; to train its "
                "backbone, give the file as `pretrained` of another method"
            )
        super().setup(stage)
        if self.weights is None:
            return
        if not self.network.normalization_is_fixed:
            raise SettingsError(
                f"the network normalizes by the data, and {self.weights} was trained with statistics of its own: give "
                "the network's mean and std"
            )
        names = self.class_names or [str(number) for number in range(self.num_classes)]
        self.print(load_classifier(self.network, self.weights, published_order(names)))
        self.weights = None

    def evaluated_checkpoint(self) -> list[str]:
        """See `ImageClassifier.evaluated_checkpoint`."""
        return [self.source]
