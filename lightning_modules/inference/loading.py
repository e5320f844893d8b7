"""Build the method of a checkpoint from the settings in the file, with or without its weights."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import TrainedCheckpoint, checkpoint_of
from tailmatch.lightning_modules.checkpoints.weights import load_weights, read_file
from tailmatch.lightning_modules.inference.class_paths import with_public_paths
from tailmatch.lightning_modules.inference.trust import Stranger, class_named, settings_from
from tailmatch.lightning_modules.networks import Network

T = TypeVar("T", bound=ImageModule)

_OF_TRAINING = ("optimizer", "lr_scheduler", "tune")
"""Arguments that only training needs. They may name packages that are not installed here."""

_OF_PREDICTION = ("network", "head")
"""Arguments that a prediction needs."""


def load_as(kind: type[T], checkpoint: str | Path, arguments: Mapping[str, Any]) -> T:
    """Load a method as `load` does, and require that it is of a class.

    Args:
        kind: Class of the method, or a base class of it.
        checkpoint: Path or URL of the checkpoint.
        arguments: Arguments as in `load`, by name.

    Raises:
        SettingsError: The checkpoint's method is of another class, the file does not exist, or the method cannot be
            built from it.
    """
    path = str(checkpoint)
    content: Any = read_file(path)
    source = checkpoint_of(content, path)
    model = method_of(kind, source, path, arguments)
    model.class_names = list(source.class_names or ())
    model.image_size = source.image_size
    model.on_load_checkpoint(content)
    load_weights(model, content["state_dict"], path)
    return model


def method_of(
    kind: type[T],
    source: TrainedCheckpoint,
    path: str,
    given: Mapping[str, Any] = MappingProxyType({}),
    training: bool = True,
) -> T:
    """Build the method of a checkpoint, without its weights.

    Pretrained weights with which the method began are neither loaded nor downloaded.

    Args:
        kind: Class of the method, or a base class of it.
        source: Content of the checkpoint, from `read_checkpoint`.
        path: Path of the checkpoint, for messages.
        given: Arguments that replace those of the checkpoint, by name.
        training: Whether the method must be able to train; False leaves out arguments that only training needs.

    Raises:
        SettingsError: The checkpoint does not say which method it contains, or the method cannot be built.
    """
    settings = source.settings.get("model")
    if settings is None or source.class_names is None:
        raise SettingsError(
            f"checkpoint {path!r} does not say which network it was: it must come from a run of the command line, or "
            "from a Trainer of this version"
        )
    settings = with_public_paths(settings)
    with settings_from(Stranger(path, roots=frozenset((settings["class_path"],)))):
        return _method(kind, source, settings, path, given, training)


def _method(
    kind: type[T],
    source: TrainedCheckpoint,
    settings: dict[str, Any],
    path: str,
    given: Mapping[str, Any],
    training: bool,
) -> T:
    found = _method_class(settings["class_path"], path, kind)
    left_out = {"num_classes", "pretrained", *given, *(() if training else _OF_TRAINING)}
    plain = {name: value for name, value in settings.get("init_args", {}).items() if name not in left_out}
    plain = settings_to_rebuild(plain)
    unknown = {name: what for name, what in source.unknown.items() if name not in left_out}
    ready = {"num_classes": len(source.class_names or ()), **_stand_ins(unknown, found, path, training), **given}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(found, "model", skip=set(ready), instantiate=False)
    try:
        built = parser.instantiate(parser.parse_object({"model": plain})).model
        arguments = {name: built[name] for name in plain}
    except (ArgumentError, ValueError, TypeError, LookupError) as error:  # whatever those in the file lead to
        raise SettingsError(f"the method of checkpoint {path!r} cannot be built: {error}") from error
    try:
        method = found(**arguments, **ready)
    except SettingsError as error:
        raise SettingsError(f"the method of checkpoint {path!r} cannot be built: {error}") from error
    method.init_args |= plain  # the settings of the checkpoint, not the objects that the parser made
    method.unknown = {name: what for name, what in method.unknown.items() if name not in plain} | unknown
    return method


def _method_class(name: str, path: str, kind: type[T]) -> type[T]:
    """Return the class of a checkpoint's method, which must be `kind` or a subclass."""
    if name == kind.class_path():
        return kind
    try:
        found = class_named(name)
    except SettingsError as error:
        raise SettingsError(f"the method of checkpoint {path!r} cannot be built: {error}") from error
    if not (isinstance(found, type) and issubclass(found, ImageModule)):
        raise SettingsError(f"the method of checkpoint {path!r} cannot be built: {name} is no method of this package")
    if found.brings_weights:
        raise SettingsError(
            f"checkpoint {path!r} is of a {found.__name__}, which is made of other checkpoints: make it from these"
        )
    if not issubclass(found, kind):
        raise SettingsError(
            f"checkpoint {path!r} is of a {found.__name__}, not of a {kind.__name__}: load it with "
            f"{found.__name__}.load_from_checkpoint, or with tailmatch.load, which takes any method"
        )
    return found


def _stand_ins(unknown: Mapping[str, str], method: type, path: str, training: bool) -> dict[str, Any]:
    """Make stand-ins for arguments that the checkpoint does not contain; a stand-in raises an error in a training.

    Raises:
        SettingsError: An argument is needed and has no stand-in.
    """
    stand_ins = {}
    for name, what in unknown.items():
        message = (
            f"checkpoint {path!r} cannot say how to make its {name} ({what}, and a file holds no code): pass it in "
            f"Python, {method.__name__}.load_from_checkpoint({path!r}, {name}=...)"
        )
        if name in _OF_TRAINING:
            stand_ins[name] = _Refusal(message)
        elif training or name in _OF_PREDICTION:
            raise SettingsError(message)
    return stand_ins


class _Refusal:
    """A stand-in for an optimizer or a schedule, which raises an error when a training calls it.

    Args:
        message: Message of the error.
    """

    def __init__(self, message: str) -> None:
        self.message = message

    def __call__(self, *args: object) -> NoReturn:
        raise SettingsError(self.message)


def settings_to_rebuild(settings: Any) -> Any:
    """Return settings whose networks, at any depth, download no pretrained weights."""
    if isinstance(settings, list):
        return [settings_to_rebuild(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    inside = {name: settings_to_rebuild(value) for name, value in settings.items()}
    arguments = inside.get("init_args", {})
    if not isinstance(settings.get("class_path"), str) or not isinstance(arguments, dict):
        return inside
    found = class_named(settings["class_path"])
    if not (isinstance(found, type) and issubclass(found, Network)):
        return inside  # if it should have been a network, the parser will refuse it
    return {**inside, "init_args": found.arguments_to_rebuild(arguments)}
