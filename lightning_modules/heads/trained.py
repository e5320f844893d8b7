"""Heads that are trained on a frozen backbone: classifier re-training and learnable weight scaling."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tailmatch.lightning_modules.checkpoints.weights import load_weights
from tailmatch.lightning_modules.heads.base import TrainedHead
from tailmatch.lightning_modules.networks import Network


class CRT(TrainedHead):
    """Classifier re-training: the network's own head, from random weights.

    Kang et al. 2020 (arXiv 1910.09217), section 4.
    """

    def build(self, network: Network) -> nn.Module:
        """See `NewHead.build`."""
        return network.head


class LWS(TrainedHead):
    """Learnable weight scaling: the trained head stays, and a factor for each class is learned.

    Kang et al. 2020 (arXiv 1910.09217), section 4.
    """

    def build(self, network: Network) -> nn.Module:
        """See `NewHead.build`."""
        return ScaledHead(network.head, network.num_classes)

    def begin(self, head: nn.Module, trained: Mapping[str, Tensor]) -> None:
        """See `NewHead.begin`."""
        load_weights(head.get_submodule("head"), trained, "of the checkpoint's head")


class ScaledHead(nn.Module):
    """`f_k (w_k x + b_k)`: a frozen head and a learned factor for each class, 1 at first.

    The paper scales weights and is silent about the bias; the authors' `models/TauNormClassifier.py` scales both,
    which is followed here, since their results come from it.

    Args:
        head: Gives logits; frozen here.
        num_classes: K.
    """

    def __init__(self, head: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.head = head.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, D]` to `[B, K]`."""
        logits: Tensor = self.scale * self.head(features)
        return logits
