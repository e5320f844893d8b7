"""A linear head whose bias is trained, and left out in evaluation."""

from torch import Tensor, nn
from torch.nn import functional as F

from tailmatch.datamodules.arguments import SettingsError


class BiasFreeHead(nn.Module):
    """A linear head with logits `W h + b` in training mode, and `W h` in evaluation mode.

    Args:
        head: Linear head with a bias, which becomes a part of this one; or a head of this class, whose part is taken.

    Raises:
        SettingsError: The head is not linear, or has no bias.
    """

    linear: nn.Linear

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        linear: nn.Module = head.linear if isinstance(head, BiasFreeHead) else head
        if not isinstance(linear, nn.Linear) or linear.bias is None:
            kind = type(linear).__name__ + (" without bias" if isinstance(linear, nn.Linear) else "")
            raise SettingsError(
                f"the network's head is a {kind}, and it must be linear with a bias, which is left out in evaluation: "
                "leave out the network's cosine_scale, or end it in nn.Linear(..., bias=True)"
            )
        self.linear = linear

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[B, D]` to logits `[B, K]`."""
        logits: Tensor = self.linear(features) if self.training else F.linear(features, self.linear.weight)
        return logits
