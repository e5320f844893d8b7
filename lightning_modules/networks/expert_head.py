"""Three heads behind class-wise BatchNorms, whose logits a gate mixes for each image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tailmatch.lightning_modules.networks.class_wise_head import ClassWiseHead, normalized

EXPERTS = 3


class ExpertHead(ClassWiseHead):
    """A mixture of three heads, each the mean of its logits over three BatchNorms of the features.

    With the features f, logits z_k of the heads, `l_k = z_k + shift_k` and the gate, an MLP:

        g = gate([f, softmax l_1, softmax l_2, softmax l_3])    p_k = max of softmax z_k over the classes of group k
        w' = softmax(softmax(g) p)                              logits = sum_k w'_k z_k

    As a network's head, it maps features, which are the mean of the feature map (see `ClassWiseHead`).

    Args:
        head: Second head, that maps features `[B, channels]` to logits `[B, K]`.
        channels: Size of the features.
        num_classes: Number of classes K.

    Attributes:
        shifts: Shift of each head's logits, `float32 [3, K]`, such as a multiple of the log prior.
        groups: Which classes are those of each head (1 or 0), `float32 [3, K]`.
    """

    shifts: Tensor
    groups: Tensor

    def __init__(self, head: nn.Module, channels: int, num_classes: int) -> None:
        super().__init__(head, channels, EXPERTS)
        self.first, self.third = nn.Linear(channels, num_classes), nn.Linear(channels, num_classes)
        widths = (channels + EXPERTS * num_classes, 128, 64, EXPERTS)
        layers = [(nn.Linear(before, after), nn.SiLU()) for before, after in zip(widths, widths[1:], strict=False)]
        self.gate = nn.Sequential(*(module for pair in layers for module in pair))
        self.register_buffer("shifts", torch.zeros(EXPERTS, num_classes))
        self.register_buffer("groups", torch.zeros(EXPERTS, num_classes))

    def experts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Return the heads."""
        return self.first, self.head, self.third

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[B, C]` to logits `[B, K]`, by running statistics in every mode."""
        branches = [normalized(features, norm) for norm in self.norms]
        logits = [torch.stack([expert(branch) for branch in branches]).mean(dim=0).float() for expert in self.experts()]
        _, weights = self.weights(features, logits)
        return mixed(weights, logits)

    def weights(self, features: Tensor, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the output of the gate, `float32 [B, 3]`, and the weights w' of the heads, `float32 [B, 3]`.

        Args:
            features: Features f, `[B, C]`.
            logits: Logits z of the three heads, `float32 [B, K]` each.
        """
        adjusted = [(z + shift).softmax(dim=1) for z, shift in zip(logits, self.shifts, strict=True)]
        gate = self.gate(torch.cat([features, *adjusted], dim=1)).float()
        confidence = [(z.softmax(dim=1) * group).amax(dim=1) for z, group in zip(logits, self.groups, strict=True)]
        return gate, (gate.softmax(dim=1) * torch.stack(confidence, dim=1)).softmax(dim=1)


def mixed(weights: Tensor, logits: Sequence[Tensor]) -> Tensor:
    """Compute `sum_k w_k z_k`, `[B, K]`, from weights `[B, 3]` and three times logits `[B, K]`."""
    return (weights[:, :, None] * torch.stack(list(logits), dim=1)).sum(dim=1)
