"""EfficientNet, from the efficientnet_pytorch package."""

from collections.abc import Mapping, Sequence
from typing import Any

import efficientnet_pytorch
from efficientnet_pytorch.utils import url_map
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    download_state_dict,
    load_weights,
    read_state_dict,
)
from tailmatch.lightning_modules.networks.network import Network

_PREFIX = "efficientnet-"
_NAMES = tuple(name.removeprefix(_PREFIX) for name in efficientnet_pytorch.model.VALID_MODELS)


class EfficientNet(Network):
    """EfficientNet `name`, on images of any size.

    Tan and Le, arXiv 1905.11946; lukemelas/EfficientNet-PyTorch `efficientnet_pytorch/model.py`. Padding
    follows the size of the input rather than the one in the original's table. The features are the
    pooled output of the last convolution, 1280 for b0.

    Args:
        num_classes: number of logits.
        name: "b0" to "b8", or "l2".
        pretrained: False for random weights; True for the published ImageNet weights (b0 to b7), from the
            network or torch hub's cache; else the path of a local state dict. All but the classifier
            is loaded.
        dropout: probability of zeroing a feature before the head, in training; None for the original's
            rate, 0.2 for b0.
        drop_connect: probability with which the last block skips its residual branch for a sample, in
            training; earlier blocks in proportion to their depth.
        mean: see `Network`; if None and `pretrained` is not False, that of ImageNet, fixed.
        std: see `Network`; if None and `pretrained` is not False, that of ImageNet, fixed.
        channels_last: see `Network`.
        cosine_scale: see `Network`.

    Raises:
        SettingsError: for an unknown name, or weights that cannot be fetched or do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        name: str = "b0",
        *,
        pretrained: bool | str = False,
        dropout: float | None = None,
        drop_connect: float = 0.2,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool = True,
        cosine_scale: float | None = None,
    ) -> None:
        if name not in _NAMES:
            raise SettingsError(f"name of an EfficientNet must be one of {', '.join(_NAMES)}, got {name!r}")
        if not 0.0 <= drop_connect < 1.0:
            raise SettingsError(f"drop_connect must be in [0, 1), got {drop_connect!r}")
        backbone = efficientnet_pytorch.EfficientNet.from_name(
            _PREFIX + name, include_top=False, image_size=None, drop_connect_rate=drop_connect
        )
        backbone.set_swish(memory_efficient=False)  # torch's own SiLU saves as little and compiles
        if pretrained is not False:
            state, source = _find_weights(name, pretrained)
            load_weights(backbone, state, source, skip=("_fc.",))
            if mean is None and std is None:
                mean, std = IMAGENET_MEAN, IMAGENET_STD
        if dropout is None:
            dropout = float(efficientnet_pytorch.utils.efficientnet_params(_PREFIX + name)[3])
        feature_dim = backbone._conv_head.out_channels
        super().__init__(num_classes, feature_dim, mean, std, dropout, channels_last, cosine_scale)
        self.backbone = backbone
        self._finish()

    @classmethod
    def arguments_to_rebuild(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """See `Network.arguments_to_rebuild`."""
        return {**arguments, "pretrained": False}

    def _features(self, normalized: Tensor) -> Tensor:
        feature_map: Tensor = self.backbone.extract_features(normalized)
        return feature_map.mean(dim=(2, 3))


def _find_weights(name: str, pretrained: str | bool) -> tuple[Mapping[str, Tensor], str]:
    """The state dict, and the file or address it came from."""
    if isinstance(pretrained, str):
        return read_state_dict(pretrained), pretrained
    if _PREFIX + name not in url_map:
        raise SettingsError(f"pretrained=True: no weights are published for {name!r}; give a local path")
    url: str = url_map[_PREFIX + name]
    return download_state_dict(url, check_hash=False), url
