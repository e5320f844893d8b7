"""Wide ResNet as FixMatch uses it."""

from collections.abc import Sequence

from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError, check_count, check_positive_share
from tailmatch.lightning_modules.networks.network import Network


def _norm_act(channels: int, momentum: float) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3, momentum=momentum), nn.LeakyReLU(0.1))


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


class _Residual(nn.Module):
    """A pre-activation residual block.

    With `activate_first` (`activate_before_residual` in FixMatch's code) the shortcut starts after the first
    normalization and activation.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, momentum: float, activate_first: bool) -> None:
        super().__init__()
        self.activate_first = activate_first
        self.pre = _norm_act(in_channels, momentum)
        self.residual = nn.Sequential(
            _conv3x3(in_channels, out_channels, stride),
            _norm_act(out_channels, momentum),
            _conv3x3(out_channels, out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_channels, H, W]` to `[B, out_channels, H / stride, W / stride]`."""
        activated = self.pre(x)
        shortcut: Tensor = self.shortcut(activated if self.activate_first else x)
        residual: Tensor = self.residual(activated)
        return shortcut + residual


class WideResNet(Network):
    """WRN-`depth`-`widen`; WRN-28-2 has 1.47 million parameters for ten classes.

    The architecture is from Zagoruyko and Komodakis, arXiv 1605.07146. The details are those of FixMatch, arXiv
    2001.07685, google-research/fixmatch `libml/models.py` (`ResNet`): LeakyReLU of slope 0.1, batch normalization with
    epsilon 1e-3 and TensorFlow momentum 0.999 (1e-3 in PyTorch's terms), activation before the shortcut in the very
    first block only, convolutions drawn from N(0, 2 / (k k out_channels)), a Glorot normal head with zero bias, dropout
    (if any) before the head.

    As in the usual PyTorch re-implementations (bbuing9/DARP `models/wrn.py`), and unlike in the TensorFlow code,
    convolutions have no bias, and those of stride 2 pad one pixel on every side where TensorFlow's "same" pads the
    right and bottom only. DARP's batch normalization declares epsilon and momentum of 1e-3 but never passes them on, so
    it runs with PyTorch's 1e-5 and 0.1; this class follows FixMatch.

    Args:
        num_classes: Number of logits, at least 2.
        depth: Number of layers, 6n + 4 with n >= 1; each of the three stages has n blocks.
        widen: Width factor, at least 1; the stages have 16, 32 and 64 times `widen` channels.
        dropout: Probability in [0, 1) that a feature is zeroed before the head in training.
        norm_momentum: Weight of a batch in BatchNorm's running statistics, in PyTorch's terms. FixMatch's 1e-3 needs
            thousands of steps before evaluation means anything; DARP's code runs with 0.1.
        mean: Channel means of images in [0, 1], given together with `std`. None takes both from the data set.
        std: Channel standard deviations of images in [0, 1], all positive. None takes them from the data set.
        channels_last: Whether weights and activations are kept in channels-last memory format: convolutions are faster,
            and the numbers the same up to rounding.
        cosine_scale: Scale s of a `NormalizedLinear` head, whose logits are s times the cosine of features and class
            weights. None for a linear head with bias. `LDAM` needs a scale; its authors use 30.

    Raises:
        SettingsError: `depth` is not 6n + 4 with n >= 1, or `widen` is less than 1.
    """

    calls_backbone = True

    def __init__(
        self,
        num_classes: int,
        depth: int = 28,
        widen: int = 2,
        *,
        dropout: float = 0.0,
        norm_momentum: float = 1e-3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool = True,
        cosine_scale: float | None = None,
    ) -> None:
        check_count("depth", depth)
        check_positive_share("norm_momentum", norm_momentum)
        if depth < 10 or depth % 6 != 4:
            raise SettingsError(f"depth is {depth!r}; it must be 6n + 4 and at least 10")
        check_count("widen", widen)
        super().__init__(num_classes, 64 * widen, mean, std, dropout, channels_last, cosine_scale)
        channels = 16
        layers: list[nn.Module] = [_conv3x3(3, channels)]
        for stage, out_channels in enumerate((16 * widen, 32 * widen, 64 * widen)):
            for block in range((depth - 4) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(_Residual(channels, out_channels, stride, norm_momentum, stage == 0 and block == 0))
                channels = out_channels
        layers.append(_norm_act(channels, norm_momentum))
        self.backbone = nn.Sequential(*layers)
        self._initialize()
        self._finish()

    def _feature_map(self, normalized: Tensor) -> Tensor:
        feature_map: Tensor = self.backbone(normalized)
        return feature_map

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)
