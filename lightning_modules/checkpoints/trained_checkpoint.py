"""The parts of a checkpoint that another method uses: network weights, classes, the network's settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.adapters import merged_adapters
from tailmatch.lightning_modules.checkpoints.configuration import read_configuration
from tailmatch.lightning_modules.checkpoints.weights import not_tensors, read_file

CONFIG_KEY = "config"
"""Checkpoint key of the run's whole configuration, as YAML."""

METHOD_KEY = "method"
"""Checkpoint key of the method's class and arguments, as plain data."""

CATEGORIES_KEY = "categories"
"""Checkpoint key of a network's `vocabulary`."""

MOST_PIXELS = 65_535
"""Bound of the height and the width of images, that of JPEG."""

_NETWORK, _HEAD = "network.", "head."


@dataclass(frozen=True)
class TrainedCheckpoint:
    """A checkpoint of this package.

    Attributes:
        backbone: Tensors of the evaluated (averaged) network without its head, with their names in the network.
            Adapters are merged into the weights that they change.
        head: Tensors of the head, with their names in the head.
        class_names: Names of the classes; None if the checkpoint has none.
        image_size: Height and width of the images it was evaluated on; None if the checkpoint does not say.
        settings: The run's configuration. For a run that was not started by the command line, it only has the `model`.
            Empty if the checkpoint does not say.
        unknown: Descriptions of the method's arguments that are not plain data and are missing in `settings`, by name.
        categories: The network's `vocabulary`; None for a network of images alone.
        splits: Saved states of data modules, which describe the split of the data, by the module's name.
        blank: Color of the image without content that debiases its evaluation; None for none (`ImageClassifier.blank`).
    """

    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    class_names: list[str] | None
    image_size: list[int] | None
    settings: dict[str, Any]
    unknown: dict[str, str]
    categories: list[dict[str, Any]] | None
    splits: dict[str, dict[str, Any]]
    blank: str | None

    @property
    def network(self) -> dict[str, Any] | None:
        """The network's settings as in a configuration; None if there are none."""
        settings: dict[str, Any] | None = self.settings.get("model", {}).get("init_args", {}).get("network")
        return settings

    def describe_network(self) -> str:
        """Return the network's settings as text, for a message."""
        if self.network is None:
            return "the checkpoint does not say which network it was"
        return f"the checkpoint's network: {yaml.safe_dump(self.network, default_flow_style=True, width=1000).strip()}"


def read_checkpoint(path: str) -> TrainedCheckpoint:
    """Read a checkpoint of any method.

    Raises:
        SettingsError: There is no such file, or it is not a checkpoint of this package.
    """
    return checkpoint_of(read_file(path), path)


def checkpoint_of(content: object, path: str) -> TrainedCheckpoint:
    """Convert the content that `read_file` returned to a checkpoint; see `read_checkpoint`."""
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    named = [name for name in state if isinstance(name, str)] if isinstance(state, Mapping) else []
    tensors = {name: state[name] for name in named if name.startswith(_NETWORK)} if state else {}
    if not tensors or not isinstance(content, Mapping):
        raise SettingsError(
            f"checkpoint {path!r} has no network of this package in it; it must be a <run>/checkpoints/*.ckpt "
            "(weights from elsewhere: train on them with `pretrained` first)"
        )
    wrong: list[object] = [
        name for name, is_right in _FACTS.items() if content.get(name) is not None and not is_right(content[name])
    ]
    wrong += not_tensors(state or {})
    if wrong:
        raise SettingsError(f"checkpoint {path!r} has a {wrong[0]} of another kind than a run saves")
    network = merged_adapters({name.removeprefix(_NETWORK): tensor for name, tensor in tensors.items()})
    return TrainedCheckpoint(
        backbone={name: tensor for name, tensor in network.items() if not name.startswith(_HEAD)},
        head={name.removeprefix(_HEAD): tensor for name, tensor in network.items() if name.startswith(_HEAD)},
        class_names=content.get("class_names"),
        image_size=content.get("image_size"),
        settings=settings_of(content, path),
        unknown=unknown_of(content),
        categories=content.get(CATEGORIES_KEY),
        splits={name: part for name, part in content.items() if isinstance(part, dict) and "split" in part},
        blank=content.get("blank"),
    )


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(entry, kind) for entry in value)


def _is_size(value: Any) -> bool:
    return _is_list(value, int) and len(value) == 2 and all(1 <= pixels <= MOST_PIXELS for pixels in value)


def _are_levels(value: Any) -> bool:
    return _is_list(value, dict) and all(
        isinstance(level.get("name"), str) and _is_list(level.get("values"), str) for level in value
    )


_FACTS: dict[str, Callable[[object], bool]] = {
    "class_names": lambda value: _is_list(value, str),
    "image_size": _is_size,
    CATEGORIES_KEY: _are_levels,
    "blank": lambda value: isinstance(value, str),
}
"""What a checkpoint may say of its data, by key; the values are used as they are."""


def unknown_of(content: Mapping[str, Any]) -> dict[str, str]:
    """Return `TrainedCheckpoint.unknown` of a checkpoint's content."""
    method = {} if CONFIG_KEY in content else content.get(METHOD_KEY)
    unknown = method.get("unknown") if isinstance(method, dict) else None
    return {str(name): str(what) for name, what in unknown.items()} if isinstance(unknown, dict) else {}


def settings_of(content: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return `TrainedCheckpoint.settings` of a checkpoint's content.

    Raises:
        SettingsError: The content has no valid configuration; see `read_configuration`.
    """
    if CONFIG_KEY in content:
        return read_configuration(content[CONFIG_KEY], path)
    if METHOD_KEY not in content:
        return {}
    try:
        method = content[METHOD_KEY]
        arguments = {name: value for name, value in method["init_args"].items() if name != "num_classes"}  # the data's
        text = yaml.safe_dump({"model": {"class_path": method["class_path"], "init_args": arguments}})
    except (yaml.YAMLError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SettingsError(f"the method in checkpoint {path!r} is no plain data: {error!r}") from error
    return read_configuration(text, path)
