"""Any torch module as a network: torchvision's classifiers, the user's own."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.networks.evaluation_mode import evaluation_mode
from tailmatch.lightning_modules.networks.network import DropoutLinear, Network, NetworkFactory

PROBED_SIZES = (32, 224)
"""Heights of the images that a module is tried on: small ones, and those that vision transformers insist on."""


class ModuleNetwork(Network):
    """A copy of a module that maps images to logits or to features.

    What the module needs is found by one small forward pass in evaluation mode:

    * Where its output is that of an `nn.Linear` with K outputs, this layer becomes the head, with its weights.
    * Another output `[B, D]`, or `[B, D, h, w]` whose mean over h and w is taken, is features, and a new linear head
      is added.

    The module gets normalized images. A checkpoint cannot say how to make it: give it again where one is loaded,
    `FixMatch.load_from_checkpoint(file, network=module)`.

    Args:
        num_classes: number of logits.
        module: takes images `[B, 3, H, W]`; it stays as it is, since a copy is trained.
        feature_dim: D, for a module that ends in a linear layer and gives features; None finds it.
        image_size: height and width of the images that it is tried on; None tries 32, then 224.
        mean: see `Network`; give what the module was trained with, if it was.
        std: see `Network`.
        channels_last: see `Network`; false by default, since modules that use `view` need it.
        cosine_scale: see `Network`; it replaces the module's own head.

    Raises:
        SettingsError: if the module cannot be run, or gives something else.
    """

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
    """The network that a method was given: a `Network`, any other module, or what makes one for K classes.

    Raises:
        SettingsError: It is none of these, or not for K classes.
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
    """What a factory makes; one that takes arguments by name alone (torchvision's) takes `num_classes`."""
    try:
        inspect.signature(factory).bind(num_classes)
    except TypeError:
        by_name: Any = factory
        return by_name(num_classes=num_classes)
    except ValueError:  # it has no signature
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
    """Numbers that a module gives for an image, and the name of the linear layer that makes them, if one does."""
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
                except Exception as error:  # whatever a module of the user raises
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
    """Features `[B, D]` of what a module gave."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 4):
        shape = f" {list(output.shape)}" if isinstance(output, Tensor) else ""
        raise _unfit(module, f"gives a {type(output).__name__}{shape}", num_classes)
    return output if output.ndim == 2 else output.mean(dim=(2, 3))


def _as_head(linear: nn.Linear) -> nn.Linear:
    """A layer as the head of our networks, where it has a bias as theirs."""
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
