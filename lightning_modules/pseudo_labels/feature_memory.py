"""The newest feature of each labeled image, as state that is saved and the same on all processes."""

import torch
from torch import Tensor

from tailmatch.lightning_modules.pseudo_labels.label_memory import LabelMemory
from tailmatch.lightning_modules.training.distributed import gather_rows

OUT_OF_REACH = -1e4
"""The similarity of an image that has not come yet: its weight is 0 beside any other, and its product with 0 is 0."""


class FeatureMemory(LabelMemory):
    """The newest feature of each of N labeled images, and its class.

    Attributes:
        features: `float32 [N + 1, D]`, 0 where there is none yet.

    Args:
        dim: Size D of a feature.
    """

    features: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(1, dim))

    def _resize(self, images: int) -> None:
        super()._resize(images)
        if len(self.features) != images + 1:
            self.features = torch.zeros(images + 1, self.features.shape[1], device=self.features.device)

    @torch.no_grad()
    def replace(self, index: Tensor, features: Tensor, target: Tensor) -> None:
        """Replace the features of this step's images, those of all processes; call it on all of them.

        Args:
            index: Positions of the images in the labeled set, `int64 [B]`.
            features: Features `float32 [B, D]`.
            target: Classes of the images, `int64 [B]`.
        """
        place = self.write(index, target, torch.ones_like(index, dtype=torch.bool))
        written = place < len(self.labels) - 1
        self.features.index_copy_(0, place, torch.where(written[:, None], gather_rows(features), 0))

    def similarities(self, features: Tensor, temperature: float) -> Tensor:
        """Compute the products of features `[B, D]` with those of all images, by the temperature: logits `[B, N]`.

        Features may be replaced before the backward pass.
        """
        with torch.autocast(features.device.type, enabled=False):
            found = features @ self.features[:-1].clone().T / temperature
        return torch.where(self.labels[:-1] >= 0, found, OUT_OF_REACH)
