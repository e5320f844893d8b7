"""Replace functions of jsonargparse that change what a user typed, or that refuse a network of the user's own.

`tests/command_line/test_mends.py` runs the original functions and fails as soon as a replacement is no longer needed.
"""

import inspect
from typing import Any

from jsonargparse import _loaders_dumpers, _typehints
from jsonargparse._util import NestedArg
from pytorch_lightning import LightningModule
from torch import nn

from tailmatch.command_line.yaml_text import SettingsLoader
from tailmatch.lightning_modules.inference import trust
from tailmatch.lightning_modules.networks import Network, NetworkFactory


def mend_jsonargparse() -> None:
    """Replace the functions; every `Parser` calls it, and calling it again changes nothing."""
    vars(_typehints).update(MENDED)
    vars(_loaders_dumpers).update(yaml_default_loader=SettingsLoader)  # of values, and of files that other options name
    trust.mend_imports()


def discard_init_args_on_class_path_change(parser_or_action: Any, prev_val: Any, value: Any) -> None:
    """Let a newly named class start from its own defaults.

    jsonargparse keeps those arguments of the former class that the new one has too: AdamW would get the weight decay of
    the SGD that it replaces, and a network the depth of another. For default values, this is the upstream issue
    https://github.com/omni-us/jsonargparse/issues/460.
    """
    UPSTREAM["discard_init_args_on_class_path_change"](parser_or_action, prev_val, value)
    if prev_val and "init_args" in prev_val and prev_val["class_path"] != value["class_path"]:
        prev_val["init_args"] = type(prev_val["init_args"])()


def subclass_spec_as_namespace(val: Any, prev_val: Any = None) -> Any:
    """Keep a typed `null` in a nested argument, such as `--model.network.weights null`.

    jsonargparse passes it on as the text "None". There is no upstream issue for it.
    """
    if isinstance(val, NestedArg) and val.val is None:
        val = NestedArg(val.key, "null")
    return UPSTREAM["subclass_spec_as_namespace"](val, prev_val)


def adapt_partial_callable_class(callable_type: Any, subclass_spec: Any) -> Any:
    """Accept any module of another package for a network, such as `mymod.OwnNet`: methods adapt it.

    The returned set says which arguments the method gives: the first one, which is the number of classes.
    """
    adapted, skipped = UPSTREAM["adapt_partial_callable_class"](callable_type, subclass_spec)
    if skipped is None and callable_type == NetworkFactory:
        found = trust.import_object(subclass_spec.class_path)
        if inspect.isclass(found) and _is_foreign_module(found):
            return subclass_spec, {1}
    return adapted, skipped


def function_returns_subclass(function: Any, subclass_types: Any, logger: Any) -> bool:
    """Accept functions of other packages that return a module where one for a network is asked for."""
    if UPSTREAM["function_returns_subclass"](function, subclass_types, logger):
        return True
    returned = getattr(function, "__annotations__", {}).get("return")
    if subclass_types != (Network,) or not _is_foreign(function):
        return False
    return inspect.isclass(returned) and issubclass(returned, nn.Module) and not issubclass(returned, LightningModule)


def _is_foreign_module(found: type) -> bool:
    return issubclass(found, nn.Module) and not issubclass(found, LightningModule) and _is_foreign(found)


def _is_foreign(found: Any) -> bool:
    """Tell whether a class or function is neither of this package nor a layer of PyTorch."""
    return str(found.__module__).split(".")[0] not in ("tailmatch", "torch", "pytorch_lightning")


_MENDS = (
    discard_init_args_on_class_path_change,
    subclass_spec_as_namespace,
    adapt_partial_callable_class,
    function_returns_subclass,
)
MENDED: dict[str, Any] = {function.__name__: function for function in _MENDS}
UPSTREAM: dict[str, Any] = {name: getattr(_typehints, name) for name in MENDED} | trust.UPSTREAM
MENDED |= trust.IMPORTS
