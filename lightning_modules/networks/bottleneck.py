"""A network whose head has a hidden layer: a bottleneck with BatchNorm and dropout."""

from torch import Tensor, nn
from torch.nn import functional as F

from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.lightning_modules.networks.module_network import as_network
from tailmatch.lightning_modules.networks.network import Network, NetworkFactory
from tailmatch.lightning_modules.networks.wide_resnet import WideResNet


class BottleneckNetwork(Network):
    """A network with a bottleneck between the features of another network and the head.

        features = ReLU(BatchNorm(W features(image) + b)),  logits = head(dropout(features))

    This is the head `ClassBlock` of seonghyeonye/CS492_cv_Zoommalgo `models.py`, which comes from re-identification.
    As there, the weights of both linear layers are drawn from N(0, 0.001^2), their biases are 0, and the scales of
    BatchNorm are drawn from N(1, 0.02^2).

    Args:
        num_classes: Number of logits, at least 2.
        network: Network of the image (the backbone), without categories. Its head is left out.
        width: Size of the bottleneck, at least 1.
        dropout: Probability in [0, 1) that a feature is zeroed before the head in training.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self, num_classes: int, network: NetworkFactory = WideResNet, *, width: int = 512, dropout: float = 0.5
    ) -> None:
        check_count("width", width)
        backbone = as_network(network, num_classes)
        self.remember("network", backbone)
        if backbone.takes_categories:
            raise SettingsError(
                f"network is a {type(backbone).__name__}; it must be a network that takes images only; put the "
                "BottleneckNetwork into a CategoryNetwork instead"
            )
        super().__init__(num_classes, width, dropout=dropout, channels_last=backbone.channels_last)
        self.normalization_is_fixed = backbone.normalization_is_fixed
        self.begins_trained = backbone.begins_trained
        self.new_layers = ["bottleneck", "norm"]
        self.mean.copy_(backbone.mean)
        self.std.copy_(backbone.std)
        self.bottleneck = nn.Linear(backbone.feature_dim, width)
        self.norm = nn.BatchNorm1d(width)
        nn.init.normal_(self.norm.weight, 1.0, 0.02)
        for linear in (self.bottleneck, self.head):
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=0.001)
            nn.init.zeros_(linear.bias)
        del backbone.head, backbone.mean, backbone.std
        self.backbone = backbone
        self._finish()

    def own_key(self, key: str) -> str:
        """See `Network.own_key`."""
        return f"backbone.{self.backbone.own_key(key)}"

    def _features(self, normalized: Tensor) -> Tensor:
        return F.relu(self.norm(self.bottleneck(self.backbone._features(normalized))))
