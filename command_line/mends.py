"""Replace functions of jsonargparse that change what a user typed.

`tests/command_line/test_mends.py` runs the original functions and fails as soon as a replacement is no longer needed.
"""

from typing import Any

from jsonargparse import _loaders_dumpers, _typehints
from jsonargparse._util import NestedArg

from tailmatch.command_line.yaml_text import SettingsLoader
from tailmatch.lightning_modules.inference import trust


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


MENDED: dict[str, Any] = {
    function.__name__: function for function in (discard_init_args_on_class_path_change, subclass_spec_as_namespace)
}
UPSTREAM: dict[str, Any] = {name: getattr(_typehints, name) for name in MENDED} | trust.UPSTREAM
MENDED |= trust.IMPORTS
