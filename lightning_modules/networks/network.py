"""The base of every network: from images in [0, 1] to features and logits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tailmatch.datamodules.arguments import (
    SettingsError,
    check_below_one,
    check_channel_statistics,
    check_count,
    check_positive,
)
from tailmatch.lightning_modules.checkpoints.description import Described
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages, untagged


class DropoutLinear(nn.Linear):
    """A linear layer with dropout on its input, so that head and dropout are one module.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        dropout: Probability in [0, 1) that an input element is zeroed in training.

    Raises:
        SettingsError: `dropout` lies outside [0, 1).
    """

    def __init__(self, in_features: int, out_features: int, dropout: float = 0.0) -> None:
        super().__init__(in_features, out_features)
        check_below_one("dropout", dropout)
        self.dropout = float(dropout)

    def forward(self, input: Tensor) -> Tensor:
        """Map `[B, in_features]` to `[B, out_features]`."""
        if self.dropout:
            input = F.dropout(input, self.dropout, self.training)
        return super().forward(input)

    def extra_repr(self) -> str:
        """Return sizes and dropout, for `print(network)`."""
        return f"{super().extra_repr()}, dropout={self.dropout}"


class NormalizedLinear(nn.Module):
    """A linear layer on the cosine of its input and each row of its weight: `scale * cos(x, w_k)`, without bias.

    Cao et al. 2019 (arXiv 1906.07413); kaidic/LDAM-DRW `models/resnet_cifar.py` (`NormedLinear`), which leaves the
    scale to the loss. Rows of the weight are drawn from uniform(-1, 1) and scaled to length 1. Cosines are computed in
    float32 even under autocast: in bfloat16, logits near 30 lie 1/8 apart.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        scale: Largest output, above 0.
        dropout: Probability in [0, 1) that an input element is zeroed in training.

    Raises:
        SettingsError: `scale` or `dropout` lies outside its domain.
    """

    def __init__(self, in_features: int, out_features: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        check_positive("cosine_scale", scale, ", or null for a linear head")
        check_below_one("dropout", dropout)
        self.scale = float(scale)
        self.dropout = float(dropout)
        self.weight = nn.Parameter(F.normalize(torch.empty(out_features, in_features).uniform_(-1, 1)))

    def forward(self, input: Tensor) -> Tensor:
        """Map `[B, in_features]` to `[B, out_features]`, in [-scale, scale]."""
        if self.dropout:
            input = F.dropout(input, self.dropout, self.training)
        with torch.autocast(input.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(input.float()), F.normalize(self.weight.float()))

    def extra_repr(self) -> str:
        """Return sizes, scale and dropout, for `print(network)`."""
        out_features, in_features = self.weight.shape
        return f"{in_features=}, {out_features=}, scale={self.scale}, dropout={self.dropout}"


class Network(Described, nn.Module):
    """An image classifier that normalizes its own input.

    `logits = head(features(images))` with images `[B, 3, H, W]`, features `[B, feature_dim]` and logits
    `[B, num_classes]`. Channel mean and std are buffers, so a checkpoint carries its own preprocessing.

    A subclass implements `_features`, or `_feature_map` if its features are the mean of one. It calls `_finish()` on
    the last line of its constructor.

    Args:
        num_classes: Number of logits, at least 2.
        feature_dim: Size of the features.
        mean: Channel means of images in [0, 1], given together with `std`. None takes both from the data set
            (`adapt_normalization`); until then they are 0 and 1.
        std: Channel standard deviations of images in [0, 1], all in (0, 1]. None takes them from the data set.
        dropout: Probability in [0, 1) that a feature is zeroed before the head in training.
        channels_last: Whether weights and activations are kept in channels-last memory format: convolutions are faster,
            and the numbers the same up to rounding.
        cosine_scale: Scale s of a `NormalizedLinear` head, whose logits are s times the cosine of features and class
            weights. None for a linear head with bias. `LDAM` needs a scale; its authors use 30.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    mean: Tensor
    std: Tensor
    takes_categories: bool = False
    """Whether the network uses the categories of an image as well; see `CategoryNetwork`."""

    begins_trained: bool = False
    """Whether the backbone was made with trained weights."""

    calls_backbone: bool = False
    """Whether the features come from one call of `backbone`, so that it can be compiled."""

    new_layers: Sequence[str] = ()
    """Names of modules that begin with random weights although they are outside the head."""

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dropout: float = 0.0,
        channels_last: bool = True,
        cosine_scale: float | None = None,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes, 2)
        check_count("feature_dim", feature_dim)
        if (mean is None) != (std is None):
            raise SettingsError(f"mean is {mean} and std is {std}; give both or neither")
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.normalization_is_fixed = mean is not None
        self.channels_last = channels_last
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))
        if mean is not None and std is not None:
            self._set_normalization(mean, std)
        self.head: nn.Module
        if cosine_scale is None:
            self.head = DropoutLinear(feature_dim, num_classes, dropout)
        else:
            self.head = NormalizedLinear(feature_dim, num_classes, cosine_scale, dropout)

    def description(self) -> dict[str, Any]:
        """See `Described.description`; the number of classes is left out, as in a configuration."""
        made = super().description()
        arguments = {name: value for name, value in made["init_args"].items() if name != "num_classes"}
        return {**made, "init_args": arguments}

    @classmethod
    def arguments_to_rebuild(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return constructor arguments of the same network that fetch no pretrained weights, to load a checkpoint into.

        Args:
            arguments: The constructor arguments of the checkpoint's network.
        """
        return dict(arguments)

    def adapt_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take channel mean and std from the data, unless they were given to the constructor.

        Args:
            mean: Three channel means of images in [0, 1].
            std: Three channel standard deviations of images in [0, 1], all positive.

        Raises:
            SettingsError: There are not three of each, or a std is not positive.
        """
        if not self.normalization_is_fixed:
            self._set_normalization(mean, std)

    @property
    def vocabulary(self) -> Sequence[Mapping[str, Any]] | None:
        """Levels of categories and their values, for a checkpoint; None for a network of images alone."""
        return None

    def take_vocabulary(self, vocabulary: Sequence[Any] | None) -> None:
        """Prepare for the weights of a checkpoint with this `vocabulary`; a network of images alone ignores it."""

    def adapt_categories(
        self, values: Mapping[str, Sequence[str]], training: Tensor | None = None, evaluated: Tensor | None = None
    ) -> None:
        """Take over the values of the data's categories; a network of images alone ignores them.

        Args:
            values: Values of each of the data's M levels, by the name of the level.
            training: Categories `int64 [N, M]` of the training images; None if the network will not be trained.
            evaluated: Categories `int64 [N, M]` of the images to predict; None if they are not known yet.
        """

    def category_codes(self, values: Mapping[str, Sequence[str | None]], count: int) -> Tensor:
        """Translate values given by name to categories `int64 [N, M]` for `with_categories`.

        Args:
            values: Values of the N images by the name of a level, None where unknown. Levels may be left out; a value
                that did not occur in training counts as unknown.
            count: Number of images N.

        Raises:
            SettingsError: The network takes images alone, it has no level of that name, or there are not N values.
        """
        raise SettingsError(
            f"categories are given ({', '.join(values)}), and the network, a {type(self).__name__}, looks at images "
            "alone: leave them out"
        )

    def with_categories(self, images: Tensor, categories: Tensor | None) -> Tensor | TaggedImages:
        """Return the network's input for images with categories; a network of images alone returns the images.

        Args:
            images: Images `[B, 3, H, W]` in [0, 1].
            categories: Categories `int64 [B, M]` of the data's M levels, -1 where unknown; None if all are unknown.
        """
        return images

    def normalize(self, images: Tensor) -> Tensor:
        """Map images in [0, 1] to `(images - mean) / std`, per channel.

        Raises:
            ValueError: The images are not floating point of shape `[B, 3, H, W]`.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are {list(images.shape)}; they must be [B, 3, H, W]")
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}; they must be floating point in [0, 1]: divide by 255")
        return ((images - self.mean) / self.std).contiguous(memory_format=self.memory_format)

    @property
    def memory_format(self) -> torch.memory_format:
        """That of weights and images; no attribute, since `torch.save` of a whole module cannot write one."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def features(self, images: Tensor | TaggedImages) -> Tensor:
        """Compute features `[B, feature_dim]` of images `[B, 3, H, W]` in [0, 1], without their tags."""
        return self._features(self.normalize(untagged(images)))

    def forward(self, images: Tensor | TaggedImages) -> Tensor:
        """Compute logits `[B, num_classes]` of images `[B, 3, H, W]` in [0, 1]."""
        return self.features_and_logits(images)[1]

    def features_and_logits(self, images: Tensor | TaggedImages) -> tuple[Tensor, Tensor]:
        """Compute features `[B, feature_dim]` and logits `[B, num_classes]`, for a method with further heads."""
        features = self.features(images)
        return features, self.head(features)

    def feature_map(self, images: Tensor | TaggedImages) -> Tensor:
        """Compute the last feature map `[B, feature_dim, h, w]`, whose mean over h and w are the features.

        Raises:
            SettingsError: The network's features are not those of a feature map, or it does not give it.
        """
        return self._feature_map(self.normalize(untagged(images)))

    def own_key(self, key: str) -> str:
        """Return this network's name for the backbone tensor that public checkpoints call `key`."""
        return f"backbone.{key.removeprefix('backbone.')}"

    def _features(self, normalized: Tensor) -> Tensor:
        """Compute features `[B, feature_dim]` of normalized images; the default is the mean of the feature map."""
        if type(self)._feature_map is Network._feature_map:
            raise NotImplementedError(f"{type(self).__name__} must implement _features")
        return self._feature_map(normalized).mean(dim=(2, 3))

    def _feature_map(self, normalized: Tensor) -> Tensor:
        """Compute the last feature map `[B, feature_dim, h, w]` of normalized images; a subclass may implement this."""
        raise SettingsError(
            f"the method normalizes the last feature map of its network, and a {type(self).__name__} does not give it: "
            "choose a WideResNet or a CifarResNet, or implement _feature_map"
        )

    def _finish(self) -> None:
        """Convert the weights to the memory format; a subclass calls this last in its constructor."""
        self.to(memory_format=self.memory_format)

    def _set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        check_channel_statistics(mean, std)
        with torch.no_grad():
            self.mean.copy_(torch.tensor([float(value) for value in mean]).view(1, 3, 1, 1))
            self.std.copy_(torch.tensor([float(value) for value in std]).view(1, 3, 1, 1))


NetworkFactory: TypeAlias = Callable[[int], Network]
"""A function that builds a network for a number of classes; methods take one as `network`.

Methods also accept a network itself, any other `torch.nn.Module`, and functions that build one: see `as_network`.
"""
