"""EfficientNet, from the efficientnet_pytorch package."""

from collections.abc import Mapping, Sequence
from typing import Any

import efficientnet_pytorch
from efficientnet_pytorch.utils import url_map
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_below_one, check_choice
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
    """EfficientNet of any size, on images of any size.

    Tan and Le, arXiv 1905.11946; lukemelas/EfficientNet-PyTorch `efficientnet_pytorch/model.py`. Padding depends on the
    size of the input, not on the image size in the paper's table. The features are the pooled output of the last
    convolution, 1280 for b0.

    Args:
        num_classes: Number of logits, at least 2.
        name: Size of the network: "b0" to "b8", or "l2".
        pretrained: False for random weights; True for the published ImageNet weights (b0 to b7), downloaded or from
            torch hub's cache; a path for a local state dict. The classifier is not loaded.
        dropout: Probability in [0, 1) that a feature is zeroed before the head in training. None is the published rate,
            0.2 for b0.
        drop_connect: Probability in [0, 1) that the last block skips its residual branch for a sample in training; for
            earlier blocks it is smaller in proportion to their depth.
        mean: Channel means of images in [0, 1], given together with `std`. None is ImageNet's with `pretrained`, else
            taken from the data set.
        std: Channel standard deviations of images in [0, 1], all positive. None as for `mean`.
        channels_last: Whether weights and activations are kept in channels-last memory format: convolutions are faster,
            and the numbers the same up to rounding.
        cosine_scale: Scale s of a `NormalizedLinear` head, whose logits are s times the cosine of features and class
            weights. None for a linear head with bias. `LDAM` needs a scale; its authors use 30.

    Raises:
        SettingsError: The name is unknown, an argument lies outside its domain, or weights cannot be fetched or do not
            fit.
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
        check_choice("name", name, _NAMES)
        check_below_one("drop_connect", drop_connect)
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
        self.begins_trained = pretrained is not False
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
    """Return the state dict, and the file or URL it came from."""
    if isinstance(pretrained, str):
        return read_state_dict(pretrained), pretrained
    if _PREFIX + name not in url_map:
        raise SettingsError(f"pretrained=True: no weights are published for {name!r}; give a local path")
    url: str = url_map[_PREFIX + name]
    return download_state_dict(url, check_hash=False), url
