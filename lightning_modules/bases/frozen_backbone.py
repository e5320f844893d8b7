"""The base of methods that replace the head of a trained network and leave the rest unchanged."""

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
from tailmatch.lightning_modules.training.finite import NotFiniteError


class FrozenBackbone(ImageClassifier):
    """A network from a checkpoint, with a new head.

    No bit of the network outside its head changes, channel statistics included. Its parameters get no gradient and
    belong to no optimizer and no average; its BatchNorm and dropout are always in evaluation mode. (In the authors' and
    in DARP's code, the running statistics of BatchNorm continue to move.)

    The checkpoint is read at the start of a fit that is not resumed. It provides the weights that were evaluated, which
    are the averages if it has any. A resumed or tested run has its own weights and does not read the file.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        checkpoint: Path or URL of a checkpoint of another method, such as `<run>/checkpoints/best.ckpt`. The command
            line also takes the network from it, unless `network` is given.
        head: New head of the network.
        pretrained: Leave this out: all weights come from the checkpoint.
        **kwargs: Other arguments of `ImageClassifier`.

    Raises:
        SettingsError: `pretrained` or `tune` is given.
    """

    def __init__(
        self, num_classes: int, checkpoint: str, head: NewHead, *, pretrained: str | None = None, **kwargs: Any
    ) -> None:
        if kwargs.get("tune") is not None:
            raise SettingsError("tune is given, and the whole backbone is frozen: leave it out, or train Supervised")
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
        """Set the mode of all modules except the backbone, which stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        self.network.head.train(mode)
        return self

    def on_train_start(self) -> None:
        """Set the right modes at the start; after an evaluation, Lightning restores the mode of each module."""
        self.train()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let a subsequent fit begin with the loaded weights, not with those of `checkpoint`."""
        super().on_load_checkpoint(checkpoint)
        self.checkpoint = None

    def begin_fit(self) -> None:
        """Load the checkpoint's network, at the start of a fit that is not resumed."""
        if self.checkpoint is None:
            return
        source = read_checkpoint(self.checkpoint)
        super().on_load_checkpoint(
            {"class_names": source.class_names or self.class_names, CATEGORIES_KEY: source.categories}
        )
        self._load(source, self.checkpoint)
        self.print(f"network of checkpoint {self.checkpoint}, with a new head: {type(self.new_head).__name__}")
        self.checkpoint = None  # a second fit continues from the first

    def _load(self, source: TrainedCheckpoint, path: str) -> None:
        try:
            load_weights(self.network, source.backbone, path, keep=("head.",))
            self.new_head.begin(self.network.head, source.head)
        except NotFiniteError:
            raise
        except ValueError as error:
            raise SettingsError(
                f"checkpoint {path!r} is of another network: {error}; {source.describe_network()}"
            ) from error
