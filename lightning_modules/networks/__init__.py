"""Networks that take images in [0, 1], normalize them themselves and return logits."""

from tailmatch.lightning_modules.networks.bottleneck import BottleneckNetwork
from tailmatch.lightning_modules.networks.categories import CategoryNetwork
from tailmatch.lightning_modules.networks.cifar_resnet import CifarResNet
from tailmatch.lightning_modules.networks.efficientnet import EfficientNet
from tailmatch.lightning_modules.networks.module_network import ModuleNetwork
from tailmatch.lightning_modules.networks.network import Network, NetworkFactory
from tailmatch.lightning_modules.networks.pretrained import load_pretrained
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
    "TorchvisionNetwork",
    "WideResNet",
    "load_pretrained",
]
