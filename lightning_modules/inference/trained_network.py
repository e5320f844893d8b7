"""The network of a checkpoint, built from the configuration in it: for use without the run that made it."""

from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import TrainedCheckpoint
from tailmatch.lightning_modules.checkpoints.weights import load_weights
from tailmatch.lightning_modules.inference.class_paths import class_named, with_public_paths
from tailmatch.lightning_modules.networks import Network

_OF_TRAINING = ("optimizer", "lr_scheduler", "pretrained")


def trained_network(source: TrainedCheckpoint, path: str) -> Network:
    """The evaluated network of a checkpoint of any method, with the head that its method gave it.

    Frozen, and in evaluation mode. Classes of this package or of the user are built by name, as the command line
    builds them; no code of the file is executed.

    Args:
        source: What `read_checkpoint` found.
        path: The checkpoint's file, for messages.

    Raises:
        SettingsError: The file does not say which network it was, it cannot be built, or its method does not classify
            by the network alone.
    """
    settings = source.settings.get("model")
    if settings is None or source.class_names is None:
        raise SettingsError(
            f"checkpoint {path!r} does not say which network it was: it must come from a run of the command line"
        )
    method = _method(settings, len(source.class_names), path)
    if type(method).forward is not ImageClassifier.forward:
        raise SettingsError(
            f"checkpoint {path!r} is of a {type(method).__name__}, which does not classify by its network alone: "
            "train a classifier that begins with it (`pretrained`), and use that"
        )
    head = {f"head.{name}": tensor for name, tensor in source.head.items()}
    method.network.take_vocabulary(source.categories)
    load_weights(method.network, source.backbone | head, path)
    return method.network.requires_grad_(False).eval()


def _method(settings: dict[str, Any], num_classes: int, path: str) -> ImageClassifier:
    """The method, without what only training needs (and which may lie in files or packages that are not here)."""
    settings = with_public_paths(settings)
    arguments = {name: value for name, value in settings["init_args"].items() if name not in _OF_TRAINING}
    if isinstance(arguments.get("network"), dict):
        arguments["network"] = network_to_rebuild(arguments["network"])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageClassifier, "model")
    model = {"class_path": settings["class_path"], "init_args": arguments | {"num_classes": num_classes}}
    try:
        built = parser.instantiate(parser.parse_object({"model": model}))
    except ArgumentError as error:
        raise SettingsError(f"the method of checkpoint {path!r} cannot be built: {error}") from error
    method: ImageClassifier = built.model
    return method


def network_to_rebuild(network: dict[str, Any]) -> dict[str, Any]:
    """Settings of a network, and of one in it, that fetch no pretrained weights: the checkpoint's take their place."""
    found = class_named(network["class_path"])
    if not (isinstance(found, type) and issubclass(found, Network)):
        return network  # the parser will refuse it
    arguments = found.arguments_to_rebuild(network.get("init_args", {}))
    inside = {name: value for name, value in arguments.items() if isinstance(value, dict) and "class_path" in value}
    rebuilt = {name: network_to_rebuild(value) for name, value in inside.items()}
    return {**network, "init_args": {**arguments, **rebuilt}}
