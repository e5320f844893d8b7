"""Networks that take images in [0, 1], normalize them themselves and return logits."""

from typing import TYPE_CHECKING

from tailmatch.lazy import lazily

if TYPE_CHECKING:
    from tailmatch.lightning_modules.networks.bottleneck import BottleneckNetwork
    from tailmatch.lightning_modules.networks.categories import CategoryNetwork
    from tailmatch.lightning_modules.networks.cifar_resnet import CifarResNet
    from tailmatch.lightning_modules.networks.efficientnet import EfficientNet
    from tailmatch.lightning_modules.networks.module_network import ModuleNetwork
    from tailmatch.lightning_modules.networks.network import Network, NetworkFactory
    from tailmatch.lightning_modules.networks.pretrained import load_pretrained
    from tailmatch.lightning_modules.networks.timm_network import TimmNetwork
    from tailmatch.lightning_modules.networks.torchvision_network import TorchvisionNetwork
    from tailmatch.lightning_modules.networks.wide_resnet import WideResNet

__all__ = [
    "BottleneckNetwork",
    "CategoryNetwork",
    "CifarResNet",
    "EfficientNet",
    "ModuleNetwork",
    "Network",
    "NetworkFactory",
    "TimmNetwork",
    "TorchvisionNetwork",
    "WideResNet",
    "load_pretrained",
]

_HOMES = {
    "BottleneckNetwork": "tailmatch.lightning_modules.networks.bottleneck",
    "CategoryNetwork": "tailmatch.lightning_modules.networks.categories",
    "CifarResNet": "tailmatch.lightning_modules.networks.cifar_resnet",
    "EfficientNet": "tailmatch.lightning_modules.networks.efficientnet",
    "ModuleNetwork": "tailmatch.lightning_modules.networks.module_network",
    "Network": "tailmatch.lightning_modules.networks.network",
    "NetworkFactory": "tailmatch.lightning_modules.networks.network",
    "TimmNetwork": "tailmatch.lightning_modules.networks.timm_network",
    "TorchvisionNetwork": "tailmatch.lightning_modules.networks.torchvision_network",
    "WideResNet": "tailmatch.lightning_modules.networks.wide_resnet",
    "load_pretrained": "tailmatch.lightning_modules.networks.pretrained",
}

if not TYPE_CHECKING:  # for a type checker, the names above are all there are
    __getattr__, __dir__ = lazily(__name__, _HOMES)
