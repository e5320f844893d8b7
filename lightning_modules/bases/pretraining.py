"""The base of self-supervised pre-training: learning without labels, evaluated by nearest neighbors."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_count, check_positive
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.bases.features import data_module_of, features_of
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages


class Pretraining(ImageClassifier):
    """A method that learns features from all training images without their labels.

    In evaluation, it classifies an image by the labeled images with the nearest features (`knn_scores`). All metrics
    under `val/` and `test/`, `best.ckpt` and `test_metrics.json` are those of this classifier. The features of the
    labeled images, without augmentation, are computed at the start of each validation and test, and are not saved.

    Other methods begin with the result by `pretrained: <run>/checkpoints/last.ckpt`.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        knn_neighbors: Number of nearest labeled images that vote; all of them, if there are fewer. 200 in Wu et al.
            2018 (arXiv 1805.01978), section 3.4.
        knn_temperature: Temperature T, above 0, of the votes' weights; 0.07 in Wu et al. 2018.
        ema_decay: Decay in [0, 1) of the averaged weights that are evaluated; None evaluates the trained weights. The
            default is None because the trained weights are those that other methods begin with, as in the authors'
            code.
        **kwargs: Other arguments of `ImageClassifier`.

    Raises:
        SettingsError: The network takes categories, or an argument lies outside its domain.
    """

    streams = ("pool",)

    def __init__(
        self,
        num_classes: int,
        *,
        knn_neighbors: int = 200,
        knn_temperature: float = 0.07,
        ema_decay: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, ema_decay=ema_decay, **kwargs)
        if self.network.takes_categories:
            raise SettingsError(
                f"network is a {type(self.network).__name__}, and {type(self).__name__} learns from images alone: "
                "pre-train its inner network, and begin with that by `pretrained`"
            )
        check_count("knn_neighbors", knn_neighbors)
        check_positive("knn_temperature", knn_temperature)
        self.knn_neighbors = knn_neighbors
        self.knn_temperature = knn_temperature
        self._bank: tuple[Tensor, Tensor] | None = None

    def setup(self, stage: str) -> None:
        """Set up a fit, validation or test.

        Raises:
            SettingsError: The stage is `predict`, in which there are no labeled images to compare with.
        """
        if stage == "predict":
            raise SettingsError(
                f"{type(self).__name__} is a pre-training and has no classifier to predict with: train one that begins "
                "with it (`pretrained`), and predict with that"
            )
        super().setup(stage)

    def forward(self, images: Tensor | TaggedImages) -> Tensor:
        """Compute scores `[B, K]` of images `[B, 3, H, W]` in [0, 1] from their nearest labeled images (`knn_scores`).

        Raises:
            SettingsError: No validation or test is running, so that there are no labeled images to compare with.
        """
        if self._bank is None:
            raise SettingsError(
                f"{type(self).__name__} classifies by labeled images, which it has in validation and test only"
            )
        return knn_scores(
            self.network.features(images), *self._bank, self.num_classes, self.knn_neighbors, self.knn_temperature
        )

    def on_validation_start(self) -> None:
        """Compute the features of the labeled images."""
        self._bank = self._labeled_features()

    def on_test_start(self) -> None:
        """Compute the features of the labeled images, after the checks of every method."""
        super().on_test_start()
        self._bank = self._labeled_features()

    def on_validation_end(self) -> None:
        """Free the features of the labeled images, besides `ImageModule.on_validation_end`."""
        super().on_validation_end()
        self._bank = None

    def on_test_end(self) -> None:
        """Free the features of the labeled images."""
        self._bank = None

    def _labeled_features(self) -> tuple[Tensor, Tensor]:
        """Compute the features `[N, D]` of the labeled images, and return them with the targets `int64 [N]`."""
        data = data_module_of(self)
        return features_of(self, data.labeled), data.labeled.targets.to(self.device)


def knn_scores(
    features: Tensor, bank: Tensor, targets: Tensor, num_classes: int, neighbors: int, temperature: float
) -> Tensor:
    """Compute the logarithm of each class's share of the votes of the nearest images, up to a constant for each row.

    The n images of the bank with the largest cosine similarity vote for their class with weight `exp(cosine / T)`
    (Wu et al. 2018, arXiv 1805.01978, section 3.4). A class without votes gets the logarithm of the smallest positive
    float32, so that all scores are finite. The softmax over a row gives the shares.

    Args:
        features: Features `[B, D]` of the images to classify.
        bank: Features `[N, D]` of the labeled images.
        targets: Classes of the labeled images, `int64 [N]`.
        num_classes: Number of classes K.
        neighbors: Number n of images that vote; all N images, if there are fewer.
        temperature: Temperature T of the votes, above 0.

    Returns:
        Scores `float32 [B, K]`. Votes are scaled so that the nearest image's counts 1; its class has a score of at
        least 0.
    """
    with torch.autocast(features.device.type, enabled=False):
        cosine = functional.normalize(features.float(), dim=1) @ functional.normalize(bank.float(), dim=1).T
        nearest = cosine.topk(min(neighbors, len(bank)), dim=1)
        weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
        votes = torch.zeros(len(features), num_classes, device=features.device)
        votes.scatter_add_(1, targets[nearest.indices], weights)
        return votes.clamp(min=torch.finfo(votes.dtype).tiny).log()
