"""LoRA: linear layers that learn a change of low rank beside their frozen weights."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from tailmatch.lightning_modules.checkpoints.adapters import LORA_A, LORA_B, LORA_SCALE, is_of_adapter

_KINDS = (nn.Linear, NonDynamicallyQuantizableLinear)
"""Classes of layers that are adapted; the second one is the output of `nn.MultiheadAttention`."""


class LoRALinear(nn.Linear):
    """A linear layer with weight `W + scale * B A`; W and the bias are frozen, A and B are trained.

    Hu et al. 2022 (arXiv 2106.09685), section 4.1. B begins as zeros, so that the layer begins as the one it was. Made
    of an existing layer by `add_adapter`, which keeps the names of its parameters.
    """

    lora_a: Tensor
    lora_b: Tensor
    lora_scale: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Map `[..., in_features]` to `[..., out_features]`."""
        change = functional.linear(functional.linear(input, self.lora_a), self.lora_b)
        return functional.linear(input, self._frozen(), self.bias) + self.lora_scale * change

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The sum of both parts, for attention that reads the weights of its layers (torchvision, BEiT)."""
        return self._frozen() + self.lora_scale * (self.lora_b @ self.lora_a)

    def _frozen(self) -> Tensor:
        return cast(Tensor, self._parameters["weight"])  # what the name means in an nn.Linear


def adaptable_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers within a module that can be adapted, by name."""
    return {name: part for name, part in module.named_modules() if type(part) in _KINDS and isinstance(part, nn.Linear)}


def adapter_tensors(module: nn.Module) -> list[str]:
    """Return the names of the adapters' tensors in a module's state dict."""
    return [name for name in module.state_dict() if is_of_adapter(name)]


def add_adapter(layer: nn.Linear, rank: int, alpha: float) -> None:
    """Turn a linear layer into a `LoRALinear` in place, and freeze the parameters that it had.

    Args:
        layer: One of `adaptable_layers`.
        rank: Rank r of the change, at least 1.
        alpha: The change is scaled by `alpha / r`.
    """
    layer.requires_grad_(False)
    weight = layer.weight
    a = torch.empty(rank, layer.in_features, dtype=weight.dtype, device=weight.device)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))  # as nn.Linear, and microsoft/LoRA `loralib/layers.py`
    layer.register_parameter(LORA_A, nn.Parameter(a))
    layer.register_parameter(LORA_B, nn.Parameter(weight.new_zeros(layer.out_features, rank)))
    layer.register_buffer(LORA_SCALE, weight.new_tensor(alpha / rank))
    layer.__class__ = LoRALinear


@torch.no_grad()
def merge_adapters(module: nn.Module) -> None:
    """Turn every `LoRALinear` within a module back into the linear layer that computes the same, in place."""
    for layer in module.modules():
        if isinstance(layer, LoRALinear):
            merged = layer.weight
            layer.__class__ = nn.Linear  # type: ignore[assignment]  # which it was
            for name in (LORA_A, LORA_B, LORA_SCALE):
                delattr(layer, name)
            layer.weight.copy_(merged)
