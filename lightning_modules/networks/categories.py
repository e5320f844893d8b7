"""What else is known of an image, as embeddings beside its features."""

from collections.abc import Mapping, Sequence

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError, check_at_least
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

    Its images are `TaggedImages`, which `with_categories` makes; of plain ones nothing else is known, so that every
    level has its embedding of unknown values. Tags are weights of the embeddings, and the embeddings are linear in
    them: mixing images (mixup) mixes the embeddings of their categories.

    The levels are named here, since methods and heads need the size of the features at once; their values come from
    the data when a fit is set up: those that occur among the images that the method trains on, since others would
    keep the embeddings that they were drawn with. A checkpoint carries them, and on other data ids are translated
    by the names of levels and values. What has no embedding counts as unknown.

    The head is the backbone's, made wider: with its dropout, its kind (`cosine_scale`) and, on the features of the
    image, its initial weights. The image is normalized as by the backbone alone.

    Args:
        num_classes: number of logits.
        levels: names of the levels, such as the columns in `ImageTable`'s `category_columns`.
        network: makes the network of the image.
        embedding_dim: length of an embedding; 18 as in the image tagging system that this package takes after.
        level_dropout: probability with which each level of each image becomes unknown in training, drawn for each
            view. With 0, the embedding of unknown values learns from images that lack the level alone.

    Raises:
        SettingsError: if an argument is out of its domain.
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
        check_at_least("embedding_dim", embedding_dim, 1)
        if not 0 <= level_dropout < 1:
            raise SettingsError(f"level_dropout is {level_dropout}; it must be in [0, 1)")
        backbone = as_network(network, num_classes)
        self.remember("network", backbone)
        if backbone.takes_categories:
            raise SettingsError(f"network is a {type(backbone).__name__}; it must be a network of images alone")
        channels_last = backbone.memory_format is torch.channels_last
        super().__init__(num_classes, backbone.feature_dim + len(levels) * embedding_dim, channels_last=channels_last)
        self.level_dropout = level_dropout
        self.normalization_is_fixed = backbone.normalization_is_fixed
        self.mean.copy_(backbone.mean)
        self.std.copy_(backbone.std)
        self.head = widened(backbone.head, self.feature_dim)
        del backbone.head, backbone.mean, backbone.std
        self.backbone = backbone
        self.category_embeddings = CategoryEmbeddings(levels, embedding_dim)
        self._has_values = False
        self._data: Mapping[str, Sequence[str]] | None = None
        self._empty: set[str] = set()  # its levels that some image lacks

    # What is known of the data

    @property
    def vocabulary(self) -> list[Level]:
        """See `Network.vocabulary`."""
        return self.category_embeddings.levels

    def take_vocabulary(self, vocabulary: Sequence[Level] | None) -> None:
        """See `Network.take_vocabulary`.

        Raises:
            SettingsError: It is of other levels, or there is none.
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
            SettingsError: It is to be trained on data that lacks one of its levels, or has no known value of it.
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
        """Take those that occur in `training int64 [N, M]`; of each level there must be some."""
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
        """Note of which levels the embedding of unknown values will be trained on `training int64 [N, M]`."""
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
        """Features `[B, feature_dim]` of images `[B, 3, H, W]` in [0, 1], with or without categories."""
        if isinstance(images, Tensor):
            images = self.with_categories(images, None)
        of_image = self.backbone._features(self.normalize(images.images))
        return torch.cat([of_image, self.category_embeddings(images.tags)], dim=1)

    def own_key(self, key: str) -> str:
        """See `Network.own_key`."""
        return f"backbone.{self.backbone.own_key(key)}"


def widened(head: nn.Module, in_features: int) -> nn.Module:
    """A head like another, for more features; of a linear one, the weights of the features it knows are kept.

    Those of the others are drawn from N(0, s^2), s the standard deviation of the kept ones.

    Raises:
        SettingsError: It is of another kind.
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
