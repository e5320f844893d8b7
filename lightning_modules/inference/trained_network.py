"""The trained method or network of a checkpoint, ready to use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import TrainedCheckpoint
from tailmatch.lightning_modules.checkpoints.weights import load_weights
from tailmatch.lightning_modules.inference.loading import load_as, method_of
from tailmatch.lightning_modules.inference.trust import trust_checkpoints
from tailmatch.lightning_modules.networks import Network
from tailmatch.lightning_modules.networks.blank_image import debias_head


def trained_network(source: TrainedCheckpoint, path: str, image_size: Sequence[int] | None = None) -> Network:
    """Build the evaluated network of a checkpoint of any method, with the head that its method gave it.

    The network is frozen and in evaluation mode. If an image without content debiases its logits, its head does so.
    Classes of this package or of the user are found by name, as on the command line; no code in the file is executed.

    Args:
        source: Content of the checkpoint, from `read_checkpoint`.
        path: Path of the checkpoint, for messages.
        image_size: Height and width in pixels of the images that it will see; None takes those of the checkpoint.

    Raises:
        SettingsError: The checkpoint does not say how to build the network, the network cannot be built, or the method
            does not classify by the network alone.
    """
    method = method_of(ImageClassifier, source, path, training=False)  # type: ignore[type-abstract]  # see `load`
    check_classifies_by_network(method, f"checkpoint {path!r} is of a {type(method).__name__}, which")
    head = {f"head.{name}": tensor for name, tensor in source.head.items()}
    method.network.take_vocabulary(source.categories)
    load_weights(method.network, source.backbone | head, path)
    network = method.network.requires_grad_(False).eval()
    debias_head(network, source.blank, image_size or source.image_size, f"checkpoint {path!r}")
    return network


def check_classifies_by_network(method: ImageClassifier, what: str) -> None:
    """Refuse a method whose predictions are not those of its network, such as a pre-training or an ensemble.

    Args:
        method: Method to check.
        what: Description of the method, with which the message begins.

    Raises:
        SettingsError: The method overrides `forward`.
    """
    if type(method).forward is not ImageClassifier.forward:
        raise SettingsError(
            f"{what} does not classify by its network alone: train a classifier that begins with it (`pretrained`), "
            "and use that"
        )


def load(checkpoint: str | Path, *, trust: bool = False, **arguments: Any) -> ImageClassifier:
    """Load the method of a checkpoint, with its arguments and the weights that were evaluated.

    Args:
        checkpoint: Path or URL of a checkpoint, from a run of the command line or from `Trainer.save_checkpoint`. No
            code in the file is executed.
        trust: Whether the file may name classes and functions outside this package, whose code then runs.
        **arguments: Arguments that replace those of the checkpoint, and arguments that a checkpoint cannot contain
            because they are not plain data, such as `network=module`.

    Returns:
        The method, on the CPU. Use `predict` to predict images with it, `Trainer.test` to test it, and `Trainer.fit` to
        continue from its weights.

    Raises:
        SettingsError: The file does not exist, or the method cannot be built from it.
    """
    with trust_checkpoints(trust):
        return load_as(ImageClassifier, checkpoint, arguments)  # type: ignore[type-abstract]  # any class that derives from it
