"""A network that joins embeddings of an image's categories to the features of the image."""

from collections.abc import Mapping, Sequence

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError, check_below_one, check_count
from tailmatch.lightning_modules.networks.category_embeddings import (
    CategoryEmbeddings,
    Level,
    levels_with_empty_cells,
    unknown_in,
)
from tailmatch.lightning_modules.networks.module_network import as_network
from tailmatch.lightning_modules.networks.network import DropoutLinear, Network, NetworkFactory, NormalizedLinear
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages
from tailmatch.lightning_modules.networks.wide_resnet import WideResNet
from tailmatch.lightning_modules.views.base import to_device


class CategoryNetwork(Network):
    """A network whose features are those of the image and an embedding for each level of categories.

        features = [features(image) | e_1[value of level 1] | ... | e_L[value of level L]]

    The input is a batch of `TaggedImages`, made by `with_categories`. Plain images have no known category, so every
    level uses its embedding of unknown values. Tags are weights of the embeddings, and the embeddings are linear in
    them: mixing images (mixup) mixes the embeddings of their categories.

    The names of the levels are arguments, since methods and heads need the size of the features at once. Their values
    come from the data when a fit is set up: those that occur among the training images, since the embeddings of others
    would never be trained. A checkpoint contains them, and ids of other data are translated by the names of levels and
    values. A value without an embedding counts as unknown.

    The head is the backbone's, made wider: with its dropout, its kind (`cosine_scale`) and, on the features of the
    image, its initial weights. The image is normalized as by the backbone alone.

    Args:
        num_classes: Number of logits, at least 2.
        levels: Names of the levels, such as the columns in `ImageTable`'s `category_columns`.
        network: Network of the image (the backbone).
        embedding_dim: Length of an embedding, at least 1; 18 as in the image tagging system on which this network is
            modeled.
        level_dropout: Probability in [0, 1) that a level of an image is set to unknown in training, drawn for each
            view. With 0, the embedding of unknown values is trained only on images that lack the level.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    takes_categories = True

    def __init__(
        self,
        num_classes: int,
        levels: Sequence[str],
        network: NetworkFactory = WideResNet,
        *,
        embedding_dim: int = 18,
        level_dropout: float = 0.0,
    ) -> None:
        if isinstance(levels, str) or not levels or len(set(levels)) < len(levels):
            raise SettingsError(f"levels are {levels!r}; they must be one or more different names")
        check_count("embedding_dim", embedding_dim)
        check_below_one("level_dropout", level_dropout)
        backbone = as_network(network, num_classes)
        self.remember("network", backbone)
        if backbone.takes_categories:
            raise SettingsError(f"network is a {type(backbone).__name__}; it must be a network of images alone")
        width = backbone.feature_dim + len(levels) * embedding_dim
        super().__init__(num_classes, width, channels_last=backbone.channels_last)
        self.level_dropout = level_dropout
        self.normalization_is_fixed = backbone.normalization_is_fixed
        self.begins_trained = backbone.begins_trained
        self.mean.copy_(backbone.mean)
        self.std.copy_(backbone.std)
        self.head = widened(backbone.head, self.feature_dim)
        del backbone.head, backbone.mean, backbone.std
        self.backbone = backbone
        self.category_embeddings = CategoryEmbeddings(levels, embedding_dim)
        self.new_layers = ["category_embeddings", *(f"backbone.{name}" for name in backbone.new_layers)]
        self._has_values = False
        self._data: Mapping[str, Sequence[str]] | None = None
        self._empty: set[str] = set()  # levels that some image lacks

    # Values of categories

    @property
    def vocabulary(self) -> list[Level]:
        """See `Network.vocabulary`."""
        return self.category_embeddings.levels

    def take_vocabulary(self, vocabulary: Sequence[Level] | None) -> None:
        """See `Network.take_vocabulary`.

        Raises:
            SettingsError: The vocabulary has other levels than the network, or is None.
        """
        own = [level["name"] for level in self.vocabulary]
        theirs = None if vocabulary is None else [level["name"] for level in vocabulary]
        if vocabulary is None or theirs != own:
            raise SettingsError(
                f"the network has category levels {own}, and the checkpoint's "
                + (f"{theirs}: name these" if theirs else "none: train its `pretrained` backbone with categories")
            )
        self.category_embeddings.take(vocabulary)
        self._has_values = True
        if self._data is not None:
            self.category_embeddings.translate(self._data)
            self._warn_of_unknown()

    def adapt_categories(
        self, values: Mapping[str, Sequence[str]], training: Tensor | None = None, evaluated: Tensor | None = None
    ) -> None:
        """See `Network.adapt_categories`.

        Raises:
            SettingsError: The training data lacks a level of the network, or has no known value in one.
        """
        if training is not None:
            missing = [level["name"] for level in self.vocabulary if level["name"] not in values]
            if missing:
                raise SettingsError(
                    f"the network has category levels {[level['name'] for level in self.vocabulary]}, and the data has "
                    f"{list(values)}: give the data's category_columns {missing} too, leave them out of the network's "
                    "levels, or train a network of images alone"
                )
            if not self._has_values:
                self._learn_values(values, training)
        self._data = values
        self.category_embeddings.translate(values)
        if training is not None:
            self._note_unknown(training)
        self._empty = levels_with_empty_cells(values, training, evaluated)
        self._warn_of_unknown()

    def _learn_values(self, values: Mapping[str, Sequence[str]], training: Tensor) -> None:
        """Take the values that occur in `training int64 [N, M]`; every level must have some."""
        levels: list[Level] = []
        for level in self.vocabulary:
            counts = torch.bincount(1 + training[:, list(values).index(level["name"])])
            found = [place - 1 for place, count in enumerate(counts.tolist()) if count]
            learned = [values[level["name"]][place] for place in found if place >= 0]
            if not learned:
                raise SettingsError(
                    f"no training image has a known {level['name']}: leave it out of the network's levels"
                )
            levels.append({**level, "values": learned})
        self.category_embeddings.take(levels)
        self.category_embeddings.draw()
        self._has_values = True

    def _note_unknown(self, training: Tensor) -> None:
        """Record for which levels `training int64 [N, M]` trains the embedding of unknown values."""
        embeddings = self.category_embeddings
        if not embeddings.table.requires_grad:
            return
        unknown = embeddings.rows(training.to(embeddings.table.device)) == embeddings.translation[:, 0]
        for level, lacking in zip(self.vocabulary, unknown.any(dim=0).tolist(), strict=True):
            level["unknown_trained"] |= lacking or self.level_dropout > 0

    def _warn_of_unknown(self) -> None:
        if self._has_values and self._data is not None:
            text = unknown_in(self.vocabulary, self._data, self._empty)
            if text:
                rank_zero_warn(text)

    # Images

    def category_codes(self, values: Mapping[str, Sequence[str | None]], count: int) -> Tensor:
        """See `Network.category_codes`."""
        own = [level["name"] for level in self.vocabulary]
        for name, given in values.items():
            if name not in own:
                raise SettingsError(f"categories have a level {name!r}, and the network has {own}")
            if len(given) != count:
                raise SettingsError(f"categories have {len(given)} values of {name}, and there are {count} images")
        listed = self._data or {level["name"]: level["values"] for level in self.vocabulary}
        codes = torch.full((count, len(listed)), -1)
        for column, (name, known) in enumerate(listed.items()):
            places: dict[str | None, int] = {value: place for place, value in enumerate(known)}
            if name in values:
                codes[:, column] = torch.tensor([places.get(value, -1) for value in values[name]])
        return codes

    def with_categories(self, images: Tensor, categories: Tensor | None) -> TaggedImages:
        """See `Network.with_categories`; in training mode, levels are dropped."""
        embeddings = self.category_embeddings
        unknown = embeddings.translation[:, 0]
        rows = unknown.expand(images.shape[0], -1) if categories is None else embeddings.rows(categories)
        if self.training and self.level_dropout:
            dropped = torch.rand(rows.shape) < self.level_dropout
            rows = torch.where(to_device(dropped, rows.device), unknown, rows)
        return TaggedImages(images, embeddings.weights(rows))

    def features(self, images: Tensor | TaggedImages) -> Tensor:
        """Compute features `[B, feature_dim]` of images `[B, 3, H, W]` in [0, 1], with or without categories."""
        if isinstance(images, Tensor):
            images = self.with_categories(images, None)
        of_image = self.backbone._features(self.normalize(images.images))
        return torch.cat([of_image, self.category_embeddings(images.tags)], dim=1)

    def feature_map(self, images: Tensor | TaggedImages) -> Tensor:
        """See `Network.feature_map`; the embeddings are the same at all places of the map."""
        if isinstance(images, Tensor):
            images = self.with_categories(images, None)
        of_image = self.backbone._feature_map(self.normalize(images.images))
        embeddings = self.category_embeddings(images.tags)[:, :, None, None]
        return torch.cat([of_image, embeddings.expand(-1, -1, *of_image.shape[2:])], dim=1)

    def own_key(self, key: str) -> str:
        """See `Network.own_key`."""
        return f"backbone.{self.backbone.own_key(key)}"


def widened(head: nn.Module, in_features: int) -> nn.Module:
    """Return a head of the same kind for more features, with the known features first.

    A linear head keeps its weights of the known features; those of the new ones are drawn from N(0, s^2), s the
    standard deviation of the kept weights.

    Raises:
        SettingsError: The head is neither a `DropoutLinear` nor a `NormalizedLinear`.
    """
    if isinstance(head, NormalizedLinear):
        return NormalizedLinear(in_features, len(head.weight), head.scale, head.dropout)
    if not isinstance(head, DropoutLinear):
        raise SettingsError(f"the head is a {type(head).__name__}; only a linear or cosine head can be made wider")
    wider = DropoutLinear(in_features, head.out_features, head.dropout)
    with torch.no_grad():
        wider.weight.normal_(std=float(head.weight.std()))
        wider.weight[:, : head.in_features] = head.weight
        wider.bias.copy_(head.bias)
    return wider
