"""The input of a network: images as float in [0, 1], with their categories if they have any."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.networks.network import Network
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages


def to_float(images: Tensor) -> Tensor:
    """Convert `uint8 [...]` pixels to float in [0, 1]."""
    return images.float() / 255


def network_input(network: Network, batch: Mapping[str, Any]) -> Tensor | TaggedImages:
    """Return the network's input for a loader's batch: images without augmentation, and their categories.

    Raises:
        SettingsError: The batch does not come from a data module of this package.
    """
    if not isinstance(batch, Mapping) or "image" not in batch:
        raise SettingsError(
            f"a batch is a {type(batch).__name__}, and not of a data module of this package: give the trainer one of "
            "tailmatch.datamodules (for images of your own: InMemory), or predict with model.predict(images)"
        )
    device = network.mean.device
    categories = batch.get("categories") if network.takes_categories else None
    if categories is not None:
        categories = categories.to(device, non_blocking=True)
    return network.with_categories(to_float(batch["image"].to(device, non_blocking=True)), categories)


def views_with_categories(network: Network, batch: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Attach the categories of each stream to its views.

    Every float tensor `[B, 3, H, W]` of a stream counts as a view, alone or in a list.
    """

    def tagged(value: Any, categories: Tensor | None) -> Any:
        if isinstance(value, list):
            return [tagged(view, categories) for view in value]
        is_view = isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 4
        return network.with_categories(value, categories) if is_view else value

    return {
        name: {key: tagged(value, stream.get("categories")) for key, value in stream.items()}
        for name, stream in batch.items()
    }
