"""What else is known of an image, as embeddings beside its features."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TypedDict

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.arguments import check_at_least
from lightning_modules.networks.network import DropoutLinear, Network, NetworkFactory, NormalizedLinear
from lightning_modules.networks.tagged_images import TaggedImages
from lightning_modules.networks.wide_resnet import WideResNet
from lightning_modules.views.base import to_device

SHOWN = 5
"""Most values that a warning names."""


class Level(TypedDict):
    """One level as a checkpoint keeps it.

    Its `name`, its `values` in the order of their embeddings, and whether the embedding of unknown values was trained.
    """

    name: str
    values: list[str]
    unknown_trained: bool


class CategoryEmbeddings(nn.Module):
    """Embeddings of the values of L levels, in one table of R rows.

    A level with V values has 1 + V neighboring rows; the first is that of an unknown value, and begins as zeros, the
    mean of what the others are drawn from. `translate` says which values `categories` count in.

    Args:
        names: Of the levels.
        dim: Length of an embedding.
    """

    columns: Tensor
    translation: Tensor

    def __init__(self, names: Sequence[str], dim: int) -> None:
        super().__init__()
        self.levels: list[Level] = [{"name": name, "values": [], "unknown_trained": False} for name in names]
        self.table = nn.Parameter(torch.zeros(len(names), dim))
        self.register_buffer("columns", torch.empty(0), persistent=False)
        self.register_buffer("translation", torch.empty(0), persistent=False)
        self.take(self.levels)

    @property
    def sizes(self) -> list[int]:
        """Rows of each level."""
        return [1 + len(level["values"]) for level in self.levels]

    def take(self, levels: Sequence[Level]) -> None:
        """Make room for these levels' values, in which `categories` count; all embeddings are zeros."""
        self.levels = [{**level, "values": list(level["values"])} for level in levels]
        self.table.data, self.table.grad = self.table.new_zeros(sum(self.sizes), self.table.shape[1]), None
        self.translate({level["name"]: level["values"] for level in self.levels})

    @torch.no_grad()
    def draw(self) -> None:
        """Draw the embeddings of known values from N(0, 1), as `nn.Embedding` does."""
        self.table.normal_()
        self.table[self.translation[:, 0]] = 0

    def translate(self, values: Mapping[str, Sequence[str]]) -> None:
        """Let `categories` count in the values of other data from now on.

        Args:
            values: Of each of the data's levels, by name; values and levels that have no embedding count as unknown.
        """
        names, device = list(values), self.table.device
        longest = max((len(listed) for listed in values.values()), default=0)
        translation = torch.zeros(len(self.levels), 1 + longest, dtype=torch.long)
        columns, first = [], 0
        for number, (level, size) in enumerate(zip(self.levels, self.sizes, strict=True)):
            places = {value: first + 1 + place for place, value in enumerate(level["values"])}
            theirs = values.get(level["name"], ())
            translation[number] = first
            translation[number, 1 : 1 + len(theirs)] = torch.tensor([places.get(value, first) for value in theirs])
            columns.append(1 + names.index(level["name"]) if level["name"] in values else 0)
            first += size
        self.columns, self.translation = torch.tensor(columns, device=device), translation.to(device)
        self.data_levels = len(names)

    def rows(self, categories: Tensor) -> Tensor:
        """Rows `int64 [B, L]` of `categories int64 [B, M]` of the data's M levels, -1 where unknown.

        Raises:
            ValueError: They are not of the levels that `translate` was told.
        """
        if categories.ndim != 2 or categories.shape[1] != self.data_levels:
            raise ValueError(
                f"categories are {list(categories.shape)}; they must be [B, {self.data_levels}], as in the data that "
                "the network was adapted to"
            )
        known = functional.pad(categories + 1, (1, 0))  # what a level that the data lacks reads: 0, unknown
        return self.translation.gather(1, known[:, self.columns].T).T

    def weights(self, rows: Tensor) -> Tensor:
        """Weights of the table's rows, `float32 [B, R, 1, 1]`: 1 for the chosen `rows int64 [B, L]`, else 0."""
        chosen = torch.zeros(rows.shape[0], sum(self.sizes), device=rows.device)
        return chosen.scatter_(1, rows, 1.0)[:, :, None, None]

    def forward(self, weights: Tensor) -> Tensor:
        """Embeddings `[B, L dim]`, level by level, of `weights [B, R, 1, 1]`: linear in them."""
        levels = list(pairwise(accumulate(self.sizes, initial=0)))
        flat = weights.flatten(1).to(self.table.dtype)
        return torch.cat([flat[:, first:end] @ self.table[first:end] for first, end in levels], dim=1)


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
        ValueError: if an argument is out of its domain.
    """

    takes_categories = True

    def __init__(
        self,
        num_classes: int,
        levels: Sequence[str],
        network: NetworkFactory = WideResNet,
        embedding_dim: int = 18,
        level_dropout: float = 0.0,
    ) -> None:
        if isinstance(levels, str) or not levels or len(set(levels)) < len(levels):
            raise ValueError(f"levels are {levels!r}; they must be one or more different names")
        check_at_least("embedding_dim", embedding_dim, 1)
        if not 0 <= level_dropout < 1:
            raise ValueError(f"level_dropout is {level_dropout}; it must be in [0, 1)")
        backbone = network(num_classes)
        if backbone.takes_categories:
            raise ValueError(f"network is a {type(backbone).__name__}; it must be a network of images alone")
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

    # What is known of the data

    @property
    def vocabulary(self) -> list[Level]:
        """See `Network.vocabulary`."""
        return self.category_embeddings.levels

    def take_vocabulary(self, vocabulary: Sequence[Level] | None) -> None:
        """See `Network.take_vocabulary`.

        Raises:
            ValueError: It is of other levels, or there is none.
        """
        own = [level["name"] for level in self.vocabulary]
        theirs = None if vocabulary is None else [level["name"] for level in vocabulary]
        if vocabulary is None or theirs != own:
            raise ValueError(
                f"the network has category levels {own}, and the checkpoint's "
                + (f"{theirs}: name these" if theirs else "none: train its `pretrained` backbone with categories")
            )
        self.category_embeddings.take(vocabulary)
        self._has_values = True
        if self._data is not None:
            self.category_embeddings.translate(self._data)
            self._warn_of_unknown()

    def adapt_categories(self, values: Mapping[str, Sequence[str]], training: Tensor | None = None) -> None:
        """See `Network.adapt_categories`.

        Raises:
            ValueError: It is to be trained on data that lacks one of its levels, or has no known value of it.
        """
        if training is not None:
            missing = [level["name"] for level in self.vocabulary if level["name"] not in values]
            if missing:
                raise ValueError(
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
        self._warn_of_unknown()

    def _learn_values(self, values: Mapping[str, Sequence[str]], training: Tensor) -> None:
        """Take those that occur in `training int64 [N, M]`; of each level there must be some."""
        levels: list[Level] = []
        for level in self.vocabulary:
            counts = torch.bincount(1 + training[:, list(values).index(level["name"])])
            found = [place - 1 for place, count in enumerate(counts.tolist()) if count]
            learned = [values[level["name"]][place] for place in found if place >= 0]
            if not learned:
                raise ValueError(f"no training image has a known {level['name']}: leave it out of the network's levels")
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
            text = unknown_in(self.vocabulary, self._data)
            if text:
                rank_zero_warn(text)

    # Images

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
        ValueError: It is of another kind.
    """
    if isinstance(head, NormalizedLinear):
        return NormalizedLinear(in_features, len(head.weight), head.scale, head.dropout)
    if not isinstance(head, DropoutLinear):
        raise ValueError(f"the head is a {type(head).__name__}; only a linear or cosine head can be made wider")
    wider = DropoutLinear(in_features, head.out_features, head.dropout)
    with torch.no_grad():
        wider.weight.normal_(std=float(head.weight.std()))
        wider.weight[:, : head.in_features] = head.weight
        wider.bias.copy_(head.bias)
    return wider


def unknown_in(vocabulary: Sequence[Level], values: Mapping[str, Sequence[str]]) -> str:
    """What of a network's levels will count as unknown on data with these values of its levels, and what it learned.

    Returns:
        A warning; empty if the network has embeddings of all levels and values of the data.
    """
    parts, untrained = [], []
    for level in vocabulary:
        name, known, theirs = level["name"], set(level["values"]), values.get(level["name"])
        strange = [value for value in theirs or () if value not in known]
        if strange:
            listed = ", ".join(strange[:SHOWN]) + (", ..." if len(strange) > SHOWN else "")
            values_are = "1 value" if len(strange) == 1 else f"{len(strange)} values"
            parts.append(f"{values_are} of {name} that no training image has ({listed})")
        if theirs is None:
            parts.append(f"{name}, which the data lacks")
        if (strange or theirs is None) and not level["unknown_trained"]:
            untrained.append(name)
    if not parts:
        return ""
    text = f"categories that count as unknown: {'; '.join(parts)}"
    if untrained:
        text += (
            f". Every training image had a known {', '.join(untrained)}, so that the network never learned what unknown"
            " means there, and takes the mean of the distribution that embeddings began with: train with level_dropout"
        )
    return text
