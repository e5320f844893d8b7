"""Heads that are trained on a frozen backbone: classifier re-training and learnable weight scaling."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tailmatch.lightning_modules.checkpoints.weights import load_weights
from tailmatch.lightning_modules.heads.base import TrainedHead
from tailmatch.lightning_modules.networks import Network


class CRT(TrainedHead):
    """Classifier re-training: the network's own head, trained from random weights.

    Kang et al. 2020 (arXiv 1910.09217), section 4.
    """

    def build(self, network: Network) -> nn.Module:
        """See `NewHead.build`."""
        return network.head


class LWS(TrainedHead):
    """Learnable weight scaling: a learned factor for each class on top of the trained head.

    Kang et al. 2020 (arXiv 1910.09217), section 4.
    """

    def build(self, network: Network) -> nn.Module:
        """See `NewHead.build`."""
        return ScaledHead(network.head, network.num_classes)

    def begin(self, head: nn.Module, trained: Mapping[str, Tensor]) -> None:
        """See `NewHead.begin`."""
        load_weights(head.get_submodule("head"), trained, "of the checkpoint's head")


class ScaledHead(nn.Module):
    """A frozen head with a learned factor for each class, `f_k (w_k x + b_k)`; factors start at 1.

    The paper scales weights and does not mention the bias. The authors' `models/TauNormClassifier.py` scales both,
    which is followed here, since the published results come from it.

    Args:
        head: Head that computes logits; it is frozen here.
        num_classes: Number of classes K.
    """

    def __init__(self, head: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.head = head.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[B, D]` to logits `[B, K]`."""
        logits: Tensor = self.scale * self.head(features)
        return logits
