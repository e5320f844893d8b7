"""What jsonargparse does and a user does not mean, put right by replacing functions of it.

`tests/command_line/test_mends.py` runs the functions as they are upstream and fails when a mend is needed no more.
"""

from typing import Any

from jsonargparse import _typehints
from jsonargparse._util import NestedArg

from tailmatch.lightning_modules.inference import trust


def mend_jsonargparse() -> None:
    """Put the functions of this module in the place of jsonargparse's. Called by every `Parser`; once is enough."""
    vars(_typehints).update(MENDED)
    trust.mend_imports()


def discard_init_args_on_class_path_change(parser_or_action: Any, prev_val: Any, value: Any) -> None:
    """Let a class named anew start from its own defaults.

    jsonargparse carries arguments of the class named before into it wherever the name fits: AdamW would take
    the weight decay of the SGD that it replaces, one network the depth of another. Upstream, the defaults among them
    are https://github.com/omni-us/jsonargparse/issues/460.
    """
    UPSTREAM["discard_init_args_on_class_path_change"](parser_or_action, prev_val, value)
    if prev_val and "init_args" in prev_val and prev_val["class_path"] != value["class_path"]:
        prev_val["init_args"] = type(prev_val["init_args"])()


def subclass_spec_as_namespace(val: Any, prev_val: Any = None) -> Any:
    """Let a typed `null` be one in an argument of an argument too: `--model.network.weights null`.

    jsonargparse hands it down as the text "None". There is no issue of it upstream.
    """
    if isinstance(val, NestedArg) and val.val is None:
        val = NestedArg(val.key, "null")
    return UPSTREAM["subclass_spec_as_namespace"](val, prev_val)


MENDED: dict[str, Any] = {
    function.__name__: function for function in (discard_init_args_on_class_path_change, subclass_spec_as_namespace)
}
UPSTREAM: dict[str, Any] = {name: getattr(_typehints, name) for name in MENDED} | trust.UPSTREAM
MENDED |= trust.IMPORTS
