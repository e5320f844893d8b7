"""The newest features of each class, as state that is saved and the same on all processes."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import check_count
from tailmatch.lightning_modules.training.distributed import gather_rows


class ClassQueue(nn.Module):
    """A ring buffer for each class, with the newest features of its labeled images.

    Rare classes keep old features and frequent ones replace theirs soon, so that all have as many in the end. Nothing
    waits for the device.

    Args:
        num_classes: Number of classes K.
        size: Number of features that are kept of each class, at least 1.
        dim: Size D of a feature.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    features: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, size: int, dim: int) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("queue_size", size)
        check_count("dim", dim)
        self.register_buffer("features", torch.zeros(num_classes, size, dim))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.long))  # of features that ever came

    @property
    def prototypes(self) -> Tensor:
        """The mean feature of each class, `float32 [K, D]`; 0 for a class that has none yet."""
        kept = self.counts.clamp(min=1, max=self.features.shape[1])
        return self.features.sum(dim=1) / kept[:, None]

    @torch.no_grad()
    def update(self, features: Tensor, target: Tensor) -> None:
        """Replace the oldest features of each class; call it on all processes.

        Args:
            features: Features of this process' labeled images, `float32 [B, D]`; B is the same on all.
            target: Classes of these images, `int64 [B]`.
        """
        features, target = gather_rows(features), gather_rows(target)
        num_classes, size, _ = self.features.shape
        one_hot = functional.one_hot(target, num_classes)
        before = (one_hot.cumsum(dim=0) - one_hot).gather(1, target[:, None])[:, 0]  # images of the class in front
        slot = target * size + (self.counts[target] + before) % size
        row = torch.arange(len(target), device=target.device)
        newest = torch.full((num_classes * size,), -1, device=target.device).scatter_reduce(0, slot, row, "amax")
        newest = newest.view(num_classes, size, 1)
        self.features.copy_(torch.where(newest >= 0, features[newest[..., 0].clamp(min=0)], self.features))
        self.counts += one_hot.sum(dim=0)
