"""Ensembles: several trained networks as one classifier."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_between, check_count, check_each
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.checkpoints.differences import check_same_classes
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.inference.trained_network import trained_network
from tailmatch.lightning_modules.networks import Network
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages, untagged
from tailmatch.lightning_modules.views.prediction import MOST_CROPS, resized, views_for_prediction

MeanOf: TypeAlias = Literal["probs", "logits"]

CROP_SHARE = 224 / 256
"""Default height of a crop as a share of the image's height (Krizhevsky et al. 2012, section 4.1)."""


def log_mean_probs(logits: Tensor, weights: Tensor) -> Tensor:
    """Compute `log(sum_m w_m softmax(logits_m))`, `[B, K]`, of `logits [M, B, K]` and `weights [M]` that sum to 1.

    The softmax of the result is the mean of the probabilities.
    """
    return torch.logsumexp(logits.log_softmax(dim=-1) + weights.log().view(-1, 1, 1), dim=0)


def mean_logits(logits: Tensor, weights: Tensor) -> Tensor:
    """Compute `sum_m w_m logits_m`, `[B, K]`, of `logits [M, B, K]` and `weights [M]` that sum to 1."""
    return (logits * weights.view(-1, 1, 1)).sum(dim=0)


MEANS: dict[MeanOf, Callable[[Tensor, Tensor], Tensor]] = {"probs": log_mean_probs, "logits": mean_logits}


class MeanNetwork(Network):
    """The mean of several networks for the same images; each network normalizes and resizes them itself.

    This network adds no weights: its features are the mean, and its head is the identity.

    Args:
        members: Networks that output logits of K classes.
        sizes: Height and width in pixels to which the images are resized for each network; None does not resize.
        weights: Weights of the networks, which sum to 1.
        mean: Function that combines the logits, `log_mean_probs` or `mean_logits`.
    """

    weights: Tensor

    def __init__(
        self,
        members: Sequence[Network],
        sizes: Sequence[Sequence[int] | None],
        weights: Sequence[float],
        mean: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        classes = members[0].num_classes
        super().__init__(classes, classes, mean=(0, 0, 0), std=(1, 1, 1), channels_last=False)
        self.head = nn.Identity()
        self.members = nn.ModuleList(members)
        self.takes_categories = any(member.takes_categories for member in members)
        self.sizes = [None if size is None else (int(size[0]), int(size[1])) for size in sizes]
        self.combine = mean
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def adapt_categories(
        self, values: Mapping[str, Sequence[str]], training: Tensor | None = None, evaluated: Tensor | None = None
    ) -> None:
        """See `Network.adapt_categories`."""
        for member in self._networks():
            member.adapt_categories(values, training, evaluated)

    def with_categories(self, images: Tensor, categories: Tensor | None) -> Tensor | TaggedImages:
        """Return images whose tags are the data's categories, which each network translates itself."""
        return images if categories is None else TaggedImages(images, categories[:, :, None, None])

    def features(self, images: Tensor | TaggedImages) -> Tensor:
        """Compute the combined logits `[B, K]` of images `[B, 3, H, W]` in [0, 1], with or without categories."""
        pixels = self.normalize(untagged(images))
        categories = images.tags.flatten(1) if isinstance(images, TaggedImages) else None
        logits = [
            member(member.with_categories(pixels if size is None else resized(pixels, size), categories)).float()
            for member, size in zip(self._networks(), self.sizes, strict=True)
        ]
        return self.combine(torch.stack(logits), self.weights)

    def _networks(self) -> list[Network]:
        return cast(list[Network], list(self.members))


class Ensemble(ImageClassifier):
    """The mean prediction of trained networks, for validation, test and prediction; it cannot be trained.

    Each network comes from a checkpoint of any method, with its evaluated (averaged) weights, channel statistics and
    image size, to which the images are resized. All checkpoints must have the classes of the data, in the same order. A
    checkpoint that was trained with another split of the same images is refused, as in a test of this checkpoint alone.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        checkpoints: Paths or URLs of the checkpoints, such as `<run>/checkpoints/best.ckpt`.
        weights: Weight of each checkpoint, at least 0 and not all 0; they are divided by their sum. None weighs all
            equally.
        mean_of: Whether the `probs` or the `logits` are averaged. The mean of logits is a geometric mean of
            probabilities, for networks whose logits have the same scale.
        flip: Whether the prediction is the mean over an image and its mirror image; an error where the data set says
            that mirroring changes the label.
        crops: Number of crops that are predicted and averaged instead of the whole image, from 0 (the whole image) to
            5: the center first, then the corners.
        crop_share: Height and width of a crop as a share in (0, 1) of the image's; None is 224 / 256.

    Raises:
        SettingsError: A checkpoint cannot be used, an argument lies outside its domain, or the classes differ.
    """

    brings_weights = True

    def __init__(
        self,
        num_classes: int,
        checkpoints: list[str],
        *,
        weights: list[float] | None = None,
        mean_of: MeanOf = "probs",
        flip: bool = False,
        crops: int = 0,
        crop_share: float | None = None,
    ) -> None:
        check_count("num_classes", num_classes, 2)
        if isinstance(checkpoints, str):
            raise SettingsError(f"checkpoints is {checkpoints!r}; it must be a list of paths")
        shares = normalized_weights(weights, len(checkpoints))
        _check_crops(crops, crop_share)
        sources = [read_checkpoint(path) for path in checkpoints]
        networks = [trained_network(source, path) for path, source in zip(checkpoints, sources, strict=True)]
        names = [list(source.class_names or []) for source in sources]
        for path, there in zip(checkpoints, names, strict=True):
            check_same_classes(there, names[0], f"checkpoint {path!r}, beside {checkpoints[0]!r},")
        sizes = [source.image_size for source in sources]
        together = MeanNetwork(networks, sizes, shares, MEANS[mean_of])
        super().__init__(len(names[0]), network=together, ema_decay=None)  # `setup` compares the classes by name
        self.mean = MEANS[mean_of]
        self.checkpoints = list(checkpoints)
        self.class_names = names[0]
        self.image_size = sizes[0]
        self.flip, self.crops = flip, crops
        self.crop_share = CROP_SHARE if crop_share is None else crop_share
        self._splits = [source.splits for source in sources]

    def setup(self, stage: str) -> None:
        """Compare the data with that of the checkpoints.

        Raises:
            SettingsError: The stage is `fit`; or the data has other classes, another split of the same images, or, with
                `flip`, images whose label mirroring changes.
        """
        if stage == "fit":
            raise SettingsError(
                "Ensemble is made of trained checkpoints and is not trained: use test, validate or predict"
            )
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise SettingsError("Ensemble compares its classes with the data's, and there is no data module: give one")
        check_same_classes(self.class_names, data.class_names, f"checkpoint {self.checkpoints[0]!r}")
        for splits in self._splits:
            if type(data).__qualname__ in splits:
                data.load_state_dict(splits[type(data).__qualname__])
        if self.flip and not data.horizontal_flip:
            raise SettingsError(
                f"flip is true, and a mirrored image of {type(data).__name__} may be of another class "
                "(horizontal_flip is false): leave flip out"
            )
        super().setup(stage)

    def forward(self, images: Tensor | TaggedImages) -> Tensor:
        """Compute logits `[B, K]` of images `[B, 3, H, W]` in [0, 1]: the log of the mean probs, or the mean logits."""
        tags = images.tags if isinstance(images, TaggedImages) else None
        views = views_for_prediction(untagged(images), self.flip, self.crops, self.crop_share)
        logits = torch.stack([self.network(view if tags is None else TaggedImages(view, tags)) for view in views])
        return self.mean(logits, logits.new_full((len(logits),), 1 / len(logits)))

    def evaluated_checkpoint(self) -> list[str]:
        """See `ImageClassifier.evaluated_checkpoint`."""
        return self.checkpoints


def normalized_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Divide the weights of an ensemble's checkpoints by their sum; None gives equal weights.

    Args:
        weights: Weight of each checkpoint, or None.
        count: Number of checkpoints.

    Raises:
        SettingsError: There are no checkpoints, there is not one weight for each, or the weights are not finite, not
            at least 0, or all 0.
    """
    if count == 0:
        raise SettingsError("checkpoints is []; an ensemble needs one or more files of runs")
    if weights is not None:
        check_each("weights", weights, check_at_least, 0)
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count:
        raise SettingsError(f"weights are {given}, and there are {count} checkpoints: give one for each")
    if not sum(given) > 0:
        raise SettingsError(f"weights are {given}; they must not all be 0")
    return [weight / sum(given) for weight in given]


def _check_crops(crops: int, share: float | None) -> None:
    check_count("crops", crops, 0)
    check_between("crops", crops, 0, MOST_CROPS, " (0: the image as it is)")
    if share is not None and not crops:
        raise SettingsError(f"crop_share is {share}, and crops is 0: give crops, or leave crop_share out")
    if share is not None and not 0 < share < 1:
        raise SettingsError(f"crop_share is {share}; it must be in (0, 1)")
