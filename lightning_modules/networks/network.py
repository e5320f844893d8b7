"""The base of every network: images in [0, 1] in, features and logits out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.description import Described
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages, untagged


class DropoutLinear(nn.Linear):
    """A linear layer with dropout on its input, so that head and dropout are one module.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        dropout: probability in [0, 1) that an input element is zeroed in training.

    Raises:
        SettingsError: if `dropout` lies outside [0, 1).
    """

    def __init__(self, in_features: int, out_features: int, dropout: float = 0.0) -> None:
        super().__init__(in_features, out_features)
        _check_dropout(dropout)
        self.dropout = float(dropout)

    def forward(self, input: Tensor) -> Tensor:
        """Map `[B, in_features]` to `[B, out_features]`."""
        if self.dropout:
            input = F.dropout(input, self.dropout, self.training)
        return super().forward(input)

    def extra_repr(self) -> str:
        """Sizes and dropout, for `print(network)`."""
        return f"{super().extra_repr()}, dropout={self.dropout}"


class NormalizedLinear(nn.Module):
    """A linear layer on the cosine of its input and each row of its weight: `scale * cos(x, w_k)`, without bias.

    Cao et al. 2019 (arXiv 1906.07413); kaidic/LDAM-DRW `models/resnet_cifar.py` (`NormedLinear`), which leaves the
    scale to the loss. Rows of the weight are drawn from uniform(-1, 1) and scaled to length 1. Cosines are computed in
    float32 also under autocast: in bfloat16, logits near 30 lie 1/8 apart.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        scale: largest output, above 0.
        dropout: probability in [0, 1) that an input element is zeroed in training.

    Raises:
        SettingsError: if `scale` or `dropout` is out of its domain.
    """

    def __init__(self, in_features: int, out_features: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        if not scale > 0:
            raise SettingsError(f"cosine_scale must be above 0, or null for a linear head; got {scale!r}")
        _check_dropout(dropout)
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
        """Sizes, scale and dropout, for `print(network)`."""
        out_features, in_features = self.weight.shape
        return f"{in_features=}, {out_features=}, scale={self.scale}, dropout={self.dropout}"


def _check_dropout(dropout: float) -> None:
    if not 0.0 <= dropout < 1.0:
        raise SettingsError(f"dropout must be in [0, 1), got {dropout!r}")


class Network(Described, nn.Module):
    """An image classifier that normalizes its own input.

    `logits = head(features(images))` with images `[B, 3, H, W]`, features `[B, feature_dim]` and logits
    `[B, num_classes]`. Channel mean and std are buffers, so a checkpoint carries its own preprocessing.

    A subclass implements `_features` and calls `_finish()` as the last line of its constructor.

    Args:
        num_classes: number of logits, at least 2.
        feature_dim: size of the features.
        mean: channel means of images in [0, 1]; given together with `std` or not at all.
        std: channel standard deviations of images in [0, 1], all positive. If mean and std are given they
            are fixed; else they are 0 and 1 until `adapt_normalization`.
        dropout: probability of zeroing a feature before the head, in training.
        channels_last: keep weights and activations in channels-last memory format: the same numbers up to
            rounding, and faster convolutions.
        cosine_scale: None for a linear head with bias; s for a `NormalizedLinear`, whose logits are s times the
            cosine of features and class weights. `losses.LDAM` needs one, the authors' with 30.

    Raises:
        SettingsError: if an argument is out of its domain.
    """

    mean: Tensor
    std: Tensor
    takes_categories: bool = False
    """Whether it looks at more than the image; see `CategoryNetwork`."""

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
        if num_classes < 2:
            raise SettingsError(f"num_classes must be at least 2, got {num_classes!r}")
        if feature_dim < 1:
            raise SettingsError(f"feature_dim must be at least 1, got {feature_dim!r}")
        if (mean is None) != (std is None):
            raise SettingsError(f"mean and std must be given together or not at all, got {mean=}, {std=}")
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.normalization_is_fixed = mean is not None
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
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
        """Constructor arguments of the same network, to be filled with a checkpoint: without fetching weights first.

        Args:
            arguments: Those that the checkpoint's network was made with.
        """
        return dict(arguments)

    def adapt_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take channel mean and std from the data, unless the network came with its own.

        Args:
            mean: three channel means of images in [0, 1].
            std: three channel standard deviations of images in [0, 1], all positive.

        Raises:
            SettingsError: if there are not three of each, or a std is not positive.
        """
        if not self.normalization_is_fixed:
            self._set_normalization(mean, std)

    @property
    def vocabulary(self) -> Sequence[Mapping[str, Any]] | None:
        """Levels of categories and their values, for a checkpoint; None of a network of images alone."""
        return None

    def take_vocabulary(self, vocabulary: Sequence[Any] | None) -> None:
        """Get ready for the weights of a checkpoint with this `vocabulary`; a network of images alone ignores it."""

    def adapt_categories(
        self, values: Mapping[str, Sequence[str]], training: Tensor | None = None, evaluated: Tensor | None = None
    ) -> None:
        """Take over what the data's categories stand for; a network of images alone ignores it.

        Args:
            values: Values of each of the data's M levels, by the level's name.
            training: `int64 [N, M]`, categories of the images that it will be trained on; None: it will not be.
            evaluated: `int64 [N, M]`, those of the images that it will predict; None: nobody knows yet.
        """

    def category_codes(self, values: Mapping[str, Sequence[str | None]], count: int) -> Tensor:
        """Categories `int64 [N, M]` for `with_categories`, of values given by name.

        Args:
            values: of each level, by its name: a value of each image, None where unknown. Levels may be left out, and a
                value that the network never saw counts as unknown.
            count: N.

        Raises:
            SettingsError: if the network looks at images alone, or has no such level, or there are not N values.
        """
        raise SettingsError(
            f"categories are given ({', '.join(values)}), and the network, a {type(self).__name__}, looks at images "
            "alone: leave them out"
        )

    def with_categories(self, images: Tensor, categories: Tensor | None) -> Tensor | TaggedImages:
        """What the network takes for images `[B, 3, H, W]` in [0, 1] of which more is known.

        Args:
            images: It takes these as they are, if it is a network of images alone.
            categories: `int64 [B, M]` of the data's M levels, -1 where unknown; None: nothing is known.
        """
        return images

    def normalize(self, images: Tensor) -> Tensor:
        """Map images in [0, 1] to `(images - mean) / std`, per channel.

        Raises:
            SettingsError: if the images are not floating point of shape `[B, 3, H, W]`.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have shape [B, 3, H, W], got {list(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(f"images must be floating point in [0, 1], got {images.dtype}; divide by 255")
        return ((images - self.mean) / self.std).contiguous(memory_format=self.memory_format)

    def features(self, images: Tensor | TaggedImages) -> Tensor:
        """Features `[B, feature_dim]` of images `[B, 3, H, W]` in [0, 1]; tags are for networks that read them."""
        return self._features(self.normalize(untagged(images)))

    def forward(self, images: Tensor | TaggedImages) -> Tensor:
        """Logits `[B, num_classes]` of images `[B, 3, H, W]` in [0, 1]."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def own_key(self, key: str) -> str:
        """This network's name for the backbone tensor that public checkpoints of the architecture call `key`."""
        return f"backbone.{key.removeprefix('backbone.')}"

    def _features(self, normalized: Tensor) -> Tensor:
        """Features `[B, feature_dim]` of normalized images; a subclass implements it."""
        raise NotImplementedError(f"{type(self).__name__} must implement _features")

    def _finish(self) -> None:
        """Put the weights into the memory format; the last line of a subclass's constructor."""
        self.to(memory_format=self.memory_format)

    def _set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        for field, values in (("mean", mean), ("std", std)):
            if len(values) != 3:
                raise SettingsError(f"{field} must have 3 values, one per channel, got {values!r}")
        if not all(value > 0 for value in std):
            raise SettingsError(f"std must be positive for images in [0, 1], got {std!r}")
        with torch.no_grad():
            self.mean.copy_(torch.tensor([float(value) for value in mean]).view(1, 3, 1, 1))
            self.std.copy_(torch.tensor([float(value) for value in std]).view(1, 3, 1, 1))


NetworkFactory: TypeAlias = Callable[[int], Network]
"""What a method receives: called with the number of classes, it builds the network.

Methods also take a network itself, any other `torch.nn.Module`, and functions that make one: see `as_network`.
"""
