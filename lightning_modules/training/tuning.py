"""Which parts of a pretrained network are trained, and at which learning rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tailmatch.datamodules.arguments import (
    SettingsError,
    check_count,
    check_positive,
    check_positive_share,
)
from tailmatch.lightning_modules.checkpoints.description import Described
from tailmatch.lightning_modules.networks.adapters import adaptable_layers, add_adapter
from tailmatch.lightning_modules.networks.network import Network
from tailmatch.lightning_modules.networks.parts import Part, backbone_parts

_RANK_LIMIT = 65_536


@dataclass
class Tuned:
    """What `Tuning.apply` did to a network.

    Attributes:
        frozen: Names of modules that stay in evaluation mode.
        rates: Factors of the learning rate by the name of a parameter; 1 for all others.
        summary: What is trained, in words.
    """

    frozen: list[str] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    summary: str = ""


class Tuning(Described):
    """Light training of a pretrained network: its head, and a part of its backbone or adapters in it.

    The head is always trained, and so are layers that begin with random weights. Frozen parts get no gradient and
    belong to no optimizer and no average; their BatchNorm and dropout stay in evaluation mode, so that no bit of them
    changes. `blocks`, `parts` and `backbone_lr` work with every network, adapters with linear layers of the backbone,
    as transformers have.

    Args:
        blocks: Number of last blocks that are trained, with the layers after them; 0 trains the head alone. None trains
            the whole backbone, unless `parts` or `lora_rank` is given.
        parts: Names of parts that are trained, in place of `blocks`: "stem", the name of a block such as
            "backbone.layer4.1", or of what contains blocks, such as "backbone.layer4".
        lora_rank: Rank, at least 1, of adapters in all linear layers of the frozen blocks (LoRA, Hu et al. 2022, arXiv
            2106.09685); 0 for none.
        lora_alpha: Factor of the adapters' change, above 0: it is scaled by `lora_alpha / lora_rank`.
        backbone_lr: Factor, above 0, of the learning rate of what is trained in the backbone.
        layer_decay: Further factor, in (0, 1], for each block before the last one, so that early layers move least (as
            in BEiT, arXiv 2106.08254, and MAE, arXiv 2111.06377, which use 0.65 to 0.85).

    Raises:
        SettingsError: An argument lies outside its domain, excludes another one, or nothing would be tuned.
    """

    def __init__(
        self,
        blocks: int | None = None,
        *,
        parts: Sequence[str] | None = None,
        lora_rank: int = 0,
        lora_alpha: float = 16.0,
        backbone_lr: float = 1.0,
        layer_decay: float = 1.0,
    ) -> None:
        if blocks is not None:
            check_count("blocks", blocks, 0)
        check_count("lora_rank", lora_rank, 0)
        check_positive("lora_alpha", lora_alpha)
        check_positive("backbone_lr", backbone_lr)
        check_positive_share("layer_decay", layer_decay)
        if isinstance(parts, str) or (parts is not None and not parts):
            raise SettingsError(f"parts is {parts!r}; it must be a list of names (for none: blocks 0)")
        if blocks is not None and parts is not None:
            raise SettingsError(f"blocks is {blocks} and parts {list(parts)}: give one of them")
        if blocks == 0 and not lora_rank and (backbone_lr, layer_decay) != (1, 1):
            raise SettingsError(
                f"backbone_lr is {backbone_lr} and layer_decay {layer_decay}, and with blocks 0 and lora_rank 0 the "
                "whole backbone is frozen: leave them out, or train blocks"
            )
        if blocks is None and parts is None and not lora_rank and (backbone_lr, layer_decay) == (1, 1):
            raise SettingsError("the tuning changes nothing: give blocks, parts, lora_rank, backbone_lr or layer_decay")
        self.blocks, self.parts = blocks, None if parts is None else list(parts)
        self.lora_rank, self.lora_alpha = lora_rank, lora_alpha
        self.backbone_lr, self.layer_decay = backbone_lr, layer_decay

    def apply(self, network: Network) -> Tuned:
        """Freeze what is not trained and add the adapters, in place.

        Raises:
            SettingsError: The network has fewer blocks, no part of that name, or no linear layer in its frozen blocks.
        """
        parts = backbone_parts(network)
        trained = self._trained(parts)
        tuned = Tuned()
        for part, is_trained in zip(parts, trained, strict=True):
            if not is_trained:
                _freeze(network, part)
        adapted = self._adapt(network, parts, trained) if self.lora_rank else []
        for part, is_trained in zip(parts, trained, strict=True):
            if not is_trained:
                tuned.frozen += _without_training(network, part)
        for distance, part in enumerate(reversed(parts)):
            rate = self.backbone_lr * self.layer_decay**distance
            if rate != 1:
                tuned.rates |= dict.fromkeys(_trained_parameters(network, part), rate)
        tuned.summary = self._summary(parts, trained, adapted)
        return tuned

    def _trained(self, parts: Sequence[Part]) -> list[bool]:
        """Tell for each part whether it is trained as a whole."""
        if self.parts is not None:
            names = [part.name for part in parts]
            unknown = [name for name in self.parts if not any(_is_in(part, name) for part in names)]
            if unknown:
                raise SettingsError(f"parts has {unknown[0]!r}, and the network's parts are {', '.join(names)}")
            return [any(_is_in(part, name) for name in self.parts) for part in names]
        if self.blocks is None:
            return [not self.lora_rank] * len(parts)
        if self.blocks > len(parts):
            raise SettingsError(
                f"blocks is {self.blocks}, and the network has {len(parts)}: {', '.join(part.name for part in parts)}"
            )
        return [place >= len(parts) - self.blocks for place in range(len(parts))]

    def _adapt(self, network: Network, parts: Sequence[Part], trained: Sequence[bool]) -> list[str]:
        """Add adapters to the linear layers of the frozen parts, and return the names of the layers."""
        frozen = [name for place, part in enumerate(parts) if not trained[place] for name in part.modules]
        layers = {
            f"{name}.{inner}" if inner else name: layer
            for name in frozen
            for inner, layer in adaptable_layers(network.get_submodule(name)).items()
        }
        if not layers:
            raise SettingsError(
                f"lora_rank is {self.lora_rank}, and the frozen part of the {type(network).__name__} has no linear "
                "layer to adapt: train its last blocks instead (blocks)"
            )
        for name, layer in layers.items():
            largest = min(layer.in_features, layer.out_features)
            if self.lora_rank > largest:
                raise SettingsError(f"lora_rank is {self.lora_rank}; for layer {name} it must be at most {largest}")
            add_adapter(layer, self.lora_rank, self.lora_alpha)
        return list(layers)

    def _summary(self, parts: Sequence[Part], trained: Sequence[bool], adapted: Sequence[str]) -> str:
        whole = [part.name for part, is_trained in zip(parts, trained, strict=True) if is_trained]
        frozen = [part.name for part, is_trained in zip(parts, trained, strict=True) if not is_trained]
        words = [f"trained: the head{''.join(f', {name}' for name in _ends(whole))}"]
        words += [f"adapters of rank {self.lora_rank} in {len(adapted)} linear layers"] if adapted else []
        words += [f"frozen: {', '.join(_ends(frozen))}"] if frozen else []
        rates = [f"{factor} {value:g}" for factor, value in self._factors().items() if value != 1]
        return "; ".join(words + ([f"learning rate: {', '.join(rates)}"] if rates else []))

    def _factors(self) -> Mapping[str, float]:
        return {"backbone_lr": self.backbone_lr, "layer_decay": self.layer_decay}


def _is_in(part: str, name: str) -> bool:
    return part == name or part.startswith(f"{name}.")


def _ends(names: Sequence[str]) -> list[str]:
    """Shorten a list of names of successive parts."""
    return list(names) if len(names) < 4 else [f"{names[0]} to {names[-1]} ({len(names)} parts)"]


def _freeze(network: Network, part: Part) -> None:
    for name in part.modules:
        network.get_submodule(name).requires_grad_(False)
    for name in part.parameters:
        network.get_parameter(name).requires_grad_(False)


def _without_training(network: Network, part: Part) -> list[str]:
    """Name the modules of a frozen part that stay in evaluation mode: all of them, or BatchNorm beside adapters."""
    if not _trained_parameters(network, part):
        return part.modules
    within = {name: network.get_submodule(name) for name in part.modules}
    return [
        f"{name}.{inner}".rstrip(".")
        for name, module in within.items()
        for inner, norm in module.named_modules()
        if isinstance(norm, _BatchNorm)
    ]


def _trained_parameters(network: Network, part: Part) -> list[str]:
    within = tuple(f"{name}." for name in part.modules)
    return [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and (name.startswith(within) or name in part.parameters)
    ]


def set_frozen_modes(method: nn.Module, frozen: Sequence[str]) -> None:
    """Set frozen modules of a method's networks to evaluation mode; MoCo's key network is a copy of the other one."""
    for network in method.children():
        if isinstance(network, Network):
            for name in frozen:
                network.get_submodule(name).eval()
