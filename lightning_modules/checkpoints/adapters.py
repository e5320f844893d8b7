"""Adapters in a state dict: merged into the weights that they change, so that any network can load them."""

from collections.abc import Mapping

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError

LORA_A, LORA_B, LORA_SCALE = "lora_a", "lora_b", "lora_scale"
"""Names of a `LoRALinear`'s tensors beside `weight` and `bias`."""


def is_of_adapter(name: str) -> bool:
    """Tell whether a tensor belongs to an adapter, by its name in a state dict."""
    return name.rpartition(".")[2] in (LORA_A, LORA_B, LORA_SCALE)


def merged_adapters(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a state dict with each adapter merged into its weight; the same object if it has none.

    Raises:
        SettingsError: An adapter lacks a tensor, or its shapes do not fit the weight.
    """
    layers = {name.rpartition(".")[0] for name in state if is_of_adapter(name)}
    if not layers:
        return state
    merged = {name: tensor for name, tensor in state.items() if not is_of_adapter(name)}
    for layer in layers:
        try:
            weight, a, b, scale = (state[f"{layer}.{part}"] for part in ("weight", LORA_A, LORA_B, LORA_SCALE))
            change = scale * (b @ a)
            if change.shape != weight.shape:
                raise RuntimeError(f"{list(change.shape)} is no change of {list(weight.shape)}")
        except (KeyError, RuntimeError) as error:
            raise SettingsError(f"the adapter of layer {layer} is not whole: {error}") from error
        merged[f"{layer}.weight"] = weight + change
    return merged
