"""ResNet for 32 x 32 images, with parameter-free shortcuts."""

import re
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.lightning_modules.networks.network import Network


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and an option-A shortcut: every second pixel, new channels filled with zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = out_channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_channels, H, W]` to `[B, out_channels, H / stride, W / stride]`."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.new_channels:
            half = self.new_channels // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new_channels - half))
        return F.relu(residual + x)


class CifarResNet(Network):
    """ResNet-`depth` for CIFAR; ResNet-32 has 0.46 million parameters for ten classes.

    He et al., arXiv 1512.03385, section 4.2, with option-A shortcuts, as long-tailed benchmarks use it:
    YyzHarry/imbalanced-semi-self `models/resnet_cifar.py` (arXiv 2006.07529) and, before it, the LDAM code (arXiv
    1906.07413). Weights of convolutions and head are Kaiming normal (fan-in, gain sqrt(2)).

    Args:
        num_classes: Number of logits, at least 2.
        depth: Number of layers, 6n + 2 with n >= 1; each of the three stages has n blocks.
        mean: Channel means of images in [0, 1], given together with `std`. None takes both from the data set.
        std: Channel standard deviations of images in [0, 1], all positive. None takes them from the data set.
        channels_last: Whether weights and activations are kept in channels-last memory format: convolutions are faster,
            and the numbers the same up to rounding.
        cosine_scale: Scale s of a `NormalizedLinear` head, whose logits are s times the cosine of features and class
            weights. None for a linear head with bias. `LDAM` needs a scale; its authors use 30.

    Raises:
        SettingsError: `depth` is not 6n + 2 with n >= 1.
    """

    calls_backbone = True

    def __init__(
        self,
        num_classes: int,
        depth: int = 32,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool = True,
        cosine_scale: float | None = None,
    ) -> None:
        check_count("depth", depth)
        if depth < 8 or depth % 6 != 2:
            raise SettingsError(f"depth is {depth!r}; it must be 6n + 2 and at least 8")
        super().__init__(num_classes, 64, mean, std, channels_last=channels_last, cosine_scale=cosine_scale)
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        self.blocks = (depth - 2) // 6
        channels = 16
        for out_channels in (16, 32, 64):
            for _ in range(self.blocks):
                layers.append(_BasicBlock(channels, out_channels, stride=out_channels // channels))
                channels = out_channels
        self.backbone = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
        self._finish()

    def own_key(self, key: str) -> str:
        """See `Network.own_key`; public names are those of imbalanced-semi-self: `conv1`, `bn1`, `layer1.0.conv1`."""
        name = key.removeprefix("backbone.")
        block = re.fullmatch(r"layer([123])\.(\d+)\.(.+)", name)
        if block:
            name = f"{3 + (int(block[1]) - 1) * self.blocks + int(block[2])}.{block[3]}"
        return super().own_key(re.sub(r"^conv1\.", "0.", re.sub(r"^bn1\.", "1.", name)))

    def _feature_map(self, normalized: Tensor) -> Tensor:
        feature_map: Tensor = self.backbone(normalized)
        return feature_map
