"""The base of self-supervised pre-training: images without labels, judged by their nearest neighbors."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_positive
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.bases.features import data_module_of, features_of
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages


class Pretraining(ImageClassifier):
    """Learns features from all training images without their labels.

    In evaluation it classifies by the labeled images whose features are nearest (`knn_scores`): every metric under
    `val/` and `test/`, `best.ckpt` and `test_metrics.json` are those of that classifier. The features of the labeled
    images, as they are, are computed anew at the start of each validation and test and never saved.

    The result for other methods is their `pretrained: <run>/checkpoints/last.ckpt`.

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        knn_neighbors: k, at most the number of labeled images (all of them, if they are fewer); 200 in
            Wu et al. 2018 (arXiv 1805.01978), section 3.4.
        knn_temperature: T of the votes; 0.07 there.
        ema_decay: See `ImageModule`; none by default, since what is handed on is the network as trained, as in the
            authors' code.
        **kwargs: The other arguments of `ImageClassifier`.
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
        check_at_least("knn_neighbors", knn_neighbors, 1)
        check_positive("knn_temperature", knn_temperature)
        self.knn_neighbors = knn_neighbors
        self.knn_temperature = knn_temperature
        self._bank: tuple[Tensor, Tensor] | None = None

    def setup(self, stage: str) -> None:
        """Refuse to predict: the labeled images that it would compare with belong to validation and test."""
        if stage == "predict":
            raise SettingsError(
                f"{type(self).__name__} is a pre-training and has no classifier to predict with: train one that begins "
                "with it (`pretrained`), and predict with that"
            )
        super().setup(stage)

    def forward(self, images: Tensor | TaggedImages) -> Tensor:
        """Scores `[B, K]` of images `[B, 3, H, W]` in [0, 1] by their nearest labeled images, as log votes.

        Raises:
            SettingsError: Outside of a validation or test there are no labeled images to compare with.
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
        """Compute the features of the labeled images."""
        self._bank = self._labeled_features()

    def on_validation_end(self) -> None:
        """Free them."""
        self._bank = None

    def on_test_end(self) -> None:
        """Free them."""
        self._bank = None

    def _labeled_features(self) -> tuple[Tensor, Tensor]:
        """Features `[N, D]` of the labeled images and their targets `[N]`."""
        data = data_module_of(self)
        return features_of(self, data.labeled), data.labeled.targets.to(self.device)


def knn_scores(
    features: Tensor, bank: Tensor, targets: Tensor, num_classes: int, neighbors: int, temperature: float
) -> Tensor:
    """Log of each class' share in the votes of the nearest images, up to a constant for each row.

    The n nearest images of the bank by cosine vote for their class with weight `exp(cosine / T)` (Wu et al. 2018,
    arXiv 1805.01978, section 3.4). A class without a vote gets the logarithm of the smallest positive number, so
    that the softmax over a row is the shares and its logarithm stays finite.

    Args:
        features: `[B, D]`.
        bank: `[N, D]`.
        targets: `int64 [N]`, classes of the bank.
        num_classes: K.
        neighbors: n; all N images, if there are fewer.
        temperature: T.

    Returns:
        `float32 [B, K]`; the nearest image's vote counts 1, so its class has at least 0.
    """
    with torch.autocast(features.device.type, enabled=False):
        cosine = functional.normalize(features.float(), dim=1) @ functional.normalize(bank.float(), dim=1).T
        nearest = cosine.topk(min(neighbors, len(bank)), dim=1)
        weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
        votes = torch.zeros(len(features), num_classes, device=features.device)
        votes.scatter_add_(1, targets[nearest.indices], weights)
        return votes.clamp(min=torch.finfo(votes.dtype).tiny).log()
