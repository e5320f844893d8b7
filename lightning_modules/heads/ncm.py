"""Nearest class mean: the cosine of centered features and class means."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import ImageRows
from tailmatch.lightning_modules.heads.base import ComputedHead
from tailmatch.lightning_modules.networks import Network


class NCM(ComputedHead):
    """Nearest class mean: logits are cosines between an image's features and the mean of each class.

    Features are centered by the mean over all labeled images and scaled to length 1. The direction of a class is the
    mean over its images, scaled to length 1 (`class_means`). Images are those of the labeled stream, each once and
    without augmentation.

    Kang et al. 2020 (arXiv 1910.09217), section 4, names the cosine and the Euclidean distance to normalized means,
    which give the same ranking. Centering is from the authors' code (facebookresearch/classifier-balancing
    `run_networks.py`: cl2n), which leaves the means shorter than 1 before it takes the Euclidean distance
    (`models/KNNClassifier.py`); here, means are normalized as in the paper.
    """

    def build(self, network: Network) -> nn.Module:
        """See `NewHead.build`."""
        return NearestMeanHead(network.feature_dim, network.num_classes)

    def images(self, data: LabeledUnlabeledDataModule) -> ImageRows:
        """See `ComputedHead.images`.

        Raises:
            SettingsError: A class has no labeled image.
        """
        empty = [name for name, count in zip(data.class_names, data.class_counts, strict=True) if not count]
        if empty:
            raise SettingsError(
                f"NCM needs labeled images of every class, and there is none of {', '.join(empty[:10])}"
                f"{', ...' if len(empty) > 10 else ''}: label some, or leave the class out"
            )
        return data.labeled

    @torch.no_grad()
    def compute(self, head: nn.Module, features: Tensor, targets: Tensor) -> str:
        """See `ComputedHead.compute`."""
        weight, center = head.get_parameter("weight"), head.get_buffer("center")
        features, targets = features.cpu(), targets.cpu()  # on a CPU, `index_add_` sums in the same order in every run
        mean = features.mean(dim=0)
        center.copy_(mean)
        weight.copy_(class_means(features - mean, targets, len(weight)))
        return f"means of {len(weight)} classes over {len(targets)} labeled images"


def class_means(features: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Compute the direction of each class, `[K, D]` with rows of length 1: the mean of its images' directions.

    Args:
        features: Centered features `[N, D]`.
        targets: Classes `int64 [N]`; each class occurs.
        num_classes: Number of classes K.
    """
    sums = features.new_zeros(num_classes, features.shape[1])
    sums.index_add_(0, targets, functional.normalize(features))
    return functional.normalize(sums)


class NearestMeanHead(nn.Module):
    """A head with logits `cos(x - center, w_k)` of features x and class means w_k, in float32 even under autocast.

    Args:
        feature_dim: Size D of the features.
        num_classes: Number of classes K.
    """

    center: Tensor

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(feature_dim))
        self.weight = nn.Parameter(torch.zeros(num_classes, feature_dim))

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, D]` to cosines `[B, K]`."""
        with torch.autocast(features.device.type, enabled=False):
            return functional.linear(functional.normalize(features.float() - self.center), self.weight)
