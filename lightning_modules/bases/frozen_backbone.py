"""The base of methods that give a trained network a new head and change nothing else."""

from typing import Any

from typing_extensions import Self

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import (
    CATEGORIES_KEY,
    TrainedCheckpoint,
    read_checkpoint,
)
from tailmatch.lightning_modules.checkpoints.weights import load_weights
from tailmatch.lightning_modules.heads import NewHead


class FrozenBackbone(ImageClassifier):
    """A network from a checkpoint, with a new head.

    Not one bit of the network outside its head changes, channel statistics included: its parameters take no gradient,
    are in no optimizer and in no average, and its BatchNorm and dropout are in evaluation mode throughout (in the
    authors' and in DARP's code, the running statistics of BatchNorm go on moving).

    The checkpoint is read at the start of a fit that is not resumed: the weights that were evaluated, averaged if it
    has averages. A resumed or tested run has its own weights and does not read the file.

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        checkpoint: File of another method's run, `<run>/checkpoints/best.ckpt`. On the command line its network is
            taken as well, unless one is given.
        head: The new head.
        pretrained: Not for this method: the checkpoint has all weights.
        **kwargs: The other arguments of `ImageClassifier`.
    """

    def __init__(
        self, num_classes: int, checkpoint: str, head: NewHead, *, pretrained: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, **kwargs)
        if pretrained is not None:
            raise SettingsError(f"pretrained is {pretrained!r}, and the weights are those of checkpoint {checkpoint!r}")
        self.checkpoint: str | None = checkpoint
        self.new_head = head
        own_head = self.network.head
        self.network.requires_grad_(False)
        own_head.requires_grad_(True)
        self.network.head = head.build(self.network)
        self.network.normalization_is_fixed = True  # the checkpoint's
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but the backbone, which stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        self.network.head.train(mode)
        return self

    def on_train_start(self) -> None:
        """Lightning restores the mode of each module by itself after an evaluation; begin in the right ones."""
        self.train()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Begin a fit that follows with these weights, and not with those of another checkpoint."""
        super().on_load_checkpoint(checkpoint)
        self.checkpoint = None

    def begin_fit(self) -> None:
        """Take the checkpoint's network, at the start of a fit that is not resumed."""
        if self.checkpoint is None:
            return
        source = read_checkpoint(self.checkpoint)
        super().on_load_checkpoint(
            {"class_names": source.class_names or self.class_names, CATEGORIES_KEY: source.categories}
        )
        self._load(source, self.checkpoint)
        self.print(f"network of checkpoint {self.checkpoint}, with a new head: {type(self.new_head).__name__}")
        self.checkpoint = None  # a second fit goes on with what the first one made of it

    def _load(self, source: TrainedCheckpoint, path: str) -> None:
        try:
            load_weights(self.network, source.backbone, path, keep=("head.",))
            self.new_head.begin(self.network.head, source.head)
        except ValueError as error:
            raise SettingsError(
                f"checkpoint {path!r} is of another network: {error}; {source.describe_network()}"
            ) from error
