"""Adapter of any torch module to a network, such as torchvision's classifiers or the user's own modules."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.lightning_modules.networks.evaluation_mode import evaluation_mode
from tailmatch.lightning_modules.networks.network import DropoutLinear, Network, NetworkFactory

PROBED_SIZES = (32, 224)
"""Heights of the images on which a module is tried: a small one, and the one that vision transformers require."""


class ModuleNetwork(Network):
    """A network around a copy of any module that maps images to logits or to features.

    One small forward pass in evaluation mode determines which of the two the module outputs:

    * If its output is that of an `nn.Linear` with K outputs, this layer becomes the head and keeps its weights.
    * Any other output `[B, D]` is taken as features, and so is the mean over h and w of an output `[B, D, h, w]`. A new
      linear head is added.

    The module receives normalized images. A checkpoint does not contain the module's code: pass the module again when
    the checkpoint is loaded, `FixMatch.load_from_checkpoint(file, network=module)`.

    Args:
        num_classes: Number of logits K, at least 2.
        module: Module that takes images `[B, 3, H, W]`. It is copied, and itself stays unchanged.
        feature_dim: Size D of the features, for a module that ends in a linear layer and outputs features; None finds
            it by the forward pass.
        image_size: Height and width in pixels of the images in the forward pass; None tries 32, then 224.
        mean: Channel means of images in [0, 1], given together with `std`: for a trained module, those of its training.
            None takes both from the data set.
        std: Channel standard deviations of images in [0, 1], all positive. None takes them from the data set.
        channels_last: Whether weights and activations are kept in channels-last memory format. The default is False,
            since modules that call `view` do not work with this format.
        cosine_scale: Scale s of a new `NormalizedLinear` head, which replaces the module's own head. None keeps the
            module's head, or adds a linear head.

    Raises:
        SettingsError: The module cannot be run, or its output is neither logits nor features.
    """

    begins_trained = True  # for all that is known

    calls_backbone = True

    def __init__(
        self,
        num_classes: int,
        module: nn.Module,
        *,
        feature_dim: int | None = None,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool = False,
        cosine_scale: float | None = None,
    ) -> None:
        if feature_dim is not None:
            check_count("feature_dim", feature_dim)
        if image_size is not None:
            check_count("image_size", image_size)
        backbone = copy.deepcopy(module)
        sizes = PROBED_SIZES if image_size is None else (image_size,)
        width, last = _probed(backbone, sizes, num_classes)
        head = None
        if feature_dim is not None:
            if width != feature_dim:
                raise _unfit(module, f"gives {width} numbers an image, and feature_dim is {feature_dim}", num_classes)
        elif last is not None:
            if width != num_classes:
                raise _unfit(module, f"ends in a linear layer {last!r} with {width} outputs", num_classes)
            head = backbone.get_submodule(last)
            backbone.set_submodule(last, nn.Identity())
            width, _ = _probed(backbone, sizes, num_classes)
        elif width == num_classes:
            raise _unfit(module, f"gives {width} numbers an image that no nn.Linear makes", num_classes)
        super().__init__(num_classes, width, mean, std, channels_last=channels_last, cosine_scale=cosine_scale)
        if isinstance(head, nn.Linear) and cosine_scale is None:
            self.head = _as_head(head)
        self.backbone = backbone
        self._finish()

    def _features(self, normalized: Tensor) -> Tensor:
        return _pooled(self.backbone(normalized), self.backbone, self.num_classes)


def as_network(network: NetworkFactory | nn.Module, num_classes: int) -> Network:
    """Return the network of a method: the given one, the given module in an adapter, or what the given function makes.

    Args:
        network: A `Network`, any other module, or a class or function that makes one for a number of classes.
        num_classes: Number of classes K.

    Raises:
        SettingsError: `network` is none of these, or does not output K logits.
    """
    made: Any = network
    if isinstance(network, type) or not isinstance(network, nn.Module):
        if not callable(network):
            raise SettingsError(
                f"network is {network!r}; it must be a network, a torch.nn.Module, or a function that makes one for a "
                "number of classes"
            )
        made = _called(network, num_classes)
    if not isinstance(made, nn.Module):
        raise SettingsError(f"network makes a {type(made).__name__}; it must make a network or a torch.nn.Module")
    if not isinstance(made, Network):
        return ModuleNetwork(num_classes, made)
    _check_classes(made, num_classes)
    return made


def _called(factory: NetworkFactory, num_classes: int) -> Any:
    """Call a factory with the number of classes, by the name `num_classes` if it takes keywords only (torchvision)."""
    try:
        inspect.signature(factory).bind(num_classes)
    except TypeError:
        by_name: Any = factory
        return by_name(num_classes=num_classes)
    except ValueError:  # the factory has no signature
        pass
    return factory(num_classes)


def _check_classes(network: Network, num_classes: int) -> None:
    given = network.num_classes
    if given == num_classes:  # a method may have replaced the head
        with evaluation_mode(network.head), torch.no_grad():
            given = network.head(network.mean.new_zeros(1, network.feature_dim)).shape[1]
    if given != num_classes:
        raise SettingsError(
            f"network is a {type(network).__name__} that gives {given} logits, and there are {num_classes} classes: "
            "make one for them"
        )


def _probed(module: nn.Module, sizes: Sequence[int], num_classes: int) -> tuple[int, str | None]:
    """Return the size of a module's output for an image, and the name of the linear layer that computes it, or None."""
    made: dict[str, Tensor] = {}
    hooks = [
        part.register_forward_hook(lambda _module, _inputs, output, name=name: made.update({name: output}))
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
    ]
    place = next(module.parameters(), torch.empty(0))
    failure = ""
    try:
        with evaluation_mode(module), torch.no_grad():
            for size in sizes:
                try:
                    output = module(torch.zeros(2, 3, size, size, device=place.device))
                except Exception as error:  # a module of the user may raise anything
                    failure = f"{type(error).__name__}: {error}"
                    continue
                features = _pooled(output, module, num_classes)
                last = [name for name, value in made.items() if value is output or _equal(value, output)]
                return features.shape[1], last[-1] if last else None
    finally:
        for hook in hooks:
            hook.remove()
    raise _unfit(module, f"cannot be run on images [2, 3, {sizes[-1]}, {sizes[-1]}] ({failure})", num_classes)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _pooled(output: object, module: nn.Module, num_classes: int) -> Tensor:
    """Return features `[B, D]` from the output of a module."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 4):
        shape = f" {list(output.shape)}" if isinstance(output, Tensor) else ""
        raise _unfit(module, f"gives a {type(output).__name__}{shape}", num_classes)
    return output if output.ndim == 2 else output.mean(dim=(2, 3))


def _as_head(linear: nn.Linear) -> nn.Linear:
    """Convert a linear layer to the head of our networks; one without bias stays as it is."""
    if linear.bias is None:
        return linear
    head = DropoutLinear(linear.in_features, linear.out_features).to(linear.weight)
    head.load_state_dict(linear.state_dict())
    return head


def _unfit(module: nn.Module, problem: str, num_classes: int) -> SettingsError:
    name = type(module).__name__
    return SettingsError(
        f"network is a {name}, and it {problem}. It must map images [B, 3, H, W] to logits [B, {num_classes}] by an "
        f"nn.Linear at its end, or to features [B, D] or [B, D, h, w]: make it for {num_classes} classes, or without "
        "its classifier, or describe it: ModuleNetwork(num_classes, module, feature_dim=..., image_size=...) of "
        "tailmatch.lightning_modules.networks"
    )
