"""Say in a few lines why a checkpoint does not fit a method or its data."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError

SHOWN = 3
"""Number of names that a message shows of a list."""


def of_another_type(own: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """List the tensors that torch would convert with a loss: complex or whole numbers, where real ones belong."""
    return [
        key
        for key, tensor in own.items()
        if isinstance(tensor, Tensor)
        and isinstance(state.get(key), Tensor)
        and (tensor.is_floating_point(), tensor.is_complex())
        != (state[key].is_floating_point(), state[key].is_complex())
    ]


def differing_tensors(own: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
    """Count the tensors that are missing, unexpected, of another shape or none at all, and name the first ones.

    Args:
        own: State dict of the module.
        state: State dict to load into it.
    """
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    reshaped = [
        f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if isinstance(state.get(key), Tensor) and state[key].shape != own[key].shape
    ]
    strange = [key for key in own if key in state and not isinstance(state[key], Tensor)]
    retyped = [f"{key} {state[key].dtype} instead of {own[key].dtype}" for key in of_another_type(own, state)]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped, "that are none": strange}
    kinds |= {"of another type": retyped}
    return "; ".join(
        f"{len(keys)} {kind}: {', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''}"
        for kind, keys in kinds.items()
        if keys
    )


def differing_settings(there: Any, here: Any) -> str:
    """Name the settings in which two descriptions of a method differ; empty if nothing is known to differ.

    Args:
        there: Description in the checkpoint, with `class_path` and `init_args`; anything else says nothing.
        here: Description of the method.
    """
    flat_there, flat_here = _flat(there), _flat(here)
    if not flat_there:
        return ""
    names = [name for name in {**flat_there, **flat_here} if flat_there.get(name) != flat_here.get(name)]
    classes = tuple(name.removesuffix("class") for name in names if name.endswith(".class"))
    names = [name for name in names if name.endswith(".class") or not name.startswith(classes)]
    names = [name for name in names if name == "class" or name.startswith("network.")] or names
    differing = [
        f"{name} is {flat_there.get(name, 'the default')} there and {flat_here.get(name, 'the default')} here"
        for name in names
    ]
    return "; ".join(differing[:SHOWN]) + ("; ..." if len(differing) > SHOWN else "")


def _flat(description: Any, name: str = "") -> dict[str, Any]:
    """Flatten a description: `{"class": "FixMatch", "network.class": "WideResNet", "network.depth": 28}`."""
    if not isinstance(description, Mapping):
        return {}
    within = f"{name}." if name else ""
    found = {f"{within}class": str(description.get("class_path", "")).rpartition(".")[2]}
    arguments = description.get("init_args")
    for key, value in (arguments if isinstance(arguments, Mapping) else {}).items():
        found |= (
            _flat(value, within + key)
            if isinstance(value, Mapping) and "class_path" in value
            else {within + key: value}
        )
    return found


def do_not_fit(
    source: str, own: Mapping[str, Tensor], state: Mapping[str, Any], there: Any, here: Any
) -> SettingsError:
    """Return the error for weights that do not fit, with what differs in at most three lines."""
    settings = differing_settings(there, here)
    return SettingsError(
        f"the weights of {source} do not fit this method"
        + (f": {settings}" if settings else "")
        + f"\n  tensors {differing_tensors(own, state)}"
        + "\n  leave out options that change the network, or begin training with these weights: --model.pretrained FILE"
    )


def check_same_classes(there: list[str], here: list[str], checkpoint: str) -> None:
    """Refuse a checkpoint that was trained on other classes.

    Args:
        there: Class names of the checkpoint.
        here: Class names of the data or the checkpoint that it is used with.
        checkpoint: Description of the checkpoint, with which the message begins.

    Raises:
        SettingsError: The class names or their order differ; the message shows the difference.
    """
    if there == here:
        return
    only_there, only_here = sorted(set(there) - set(here)), sorted(set(here) - set(there))
    raise SettingsError(
        f"{checkpoint} was trained on other classes: only there {only_there[:10]}, only here {only_here[:10]}"
        + (
            ""
            if only_there or only_here
            else "; the same names in another order, which `take_class_names` of the data "
            "takes from the checkpoint's class_names"
        )
    )
