"""What a new head for a trained backbone is: its structure, its beginning, and where it comes from."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import ImageRows
from tailmatch.lightning_modules.checkpoints.description import Described
from tailmatch.lightning_modules.networks import Network


class NewHead(Described):
    """Takes the place of a network's head, while the backbone stays as it is."""

    @abstractmethod
    def build(self, network: Network) -> nn.Module:
        """The module that maps features `[B, D]` to logits `[B, K]`.

        Args:
            network: Has its own, untrained head, which may become the new one or a part of it.

        Raises:
            SettingsError: The head does not go with this network.
        """

    def begin(self, head: nn.Module, trained: Mapping[str, Tensor]) -> None:
        """Take over the trained head's weights, at the start of a fit; the default takes none.

        Args:
            head: What `build` made.
            trained: State dict of the checkpoint's head.

        Raises:
            SettingsError: They do not fit.
        """


class TrainedHead(NewHead):
    """A head whose parameters with `requires_grad` are trained by gradient."""


class ComputedHead(NewHead):
    """A head that follows from features of images, without training."""

    @abstractmethod
    def images(self, data: LabeledUnlabeledDataModule) -> ImageRows:
        """The images it is computed from, with targets.

        Raises:
            SettingsError: The data does not have them.
        """

    @abstractmethod
    def compute(self, head: nn.Module, features: Tensor, targets: Tensor) -> str:
        """Set the head's weights in place.

        Args:
            head: What `build` made, after `begin`.
            features: `float32 [N, D]` of the images.
            targets: `int64 [N]`, their classes.

        Returns:
            What was found, for the log.
        """
