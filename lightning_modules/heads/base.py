"""The base of new heads for a trained backbone: their structure, initial weights and origin."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import ImageRows
from tailmatch.lightning_modules.checkpoints.description import Described
from tailmatch.lightning_modules.networks import Network


class NewHead(Described):
    """A replacement for a network's head, while the backbone stays as it is."""

    @abstractmethod
    def build(self, network: Network) -> nn.Module:
        """Build the module that maps features `[B, D]` to logits `[B, K]`.

        Args:
            network: Network with an untrained head, which may become the new one or a part of it.

        Raises:
            SettingsError: The head cannot be combined with this network.
        """

    def begin(self, head: nn.Module, trained: Mapping[str, Tensor]) -> None:
        """Load weights of the trained head at the start of a fit; the default loads none.

        Args:
            head: Module returned by `build`.
            trained: State dict of the checkpoint's head.

        Raises:
            SettingsError: The weights do not fit.
        """


class TrainedHead(NewHead):
    """A head whose parameters with `requires_grad` are trained by gradient descent."""


class ComputedHead(NewHead):
    """A head that is computed from features of images, without training."""

    @abstractmethod
    def images(self, data: LabeledUnlabeledDataModule) -> ImageRows:
        """Return the images from which the head is computed, with targets.

        Raises:
            SettingsError: The data does not have such images.
        """

    @abstractmethod
    def compute(self, head: nn.Module, features: Tensor, targets: Tensor) -> str:
        """Set the head's weights in place.

        Args:
            head: Module returned by `build`, after `begin`.
            features: Features `float32 [N, D]` of the images.
            targets: Classes `int64 [N]` of the images.

        Returns:
            A summary for the log.
        """
