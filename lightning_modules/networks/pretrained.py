"""Pretrained weights of a backbone: find its tensors in a file and load them."""

from collections.abc import Mapping

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.weights import COUNTER, load_weights, read_state_dict
from tailmatch.lightning_modules.networks.network import Network

PREFIXES = ("network.", "network.backbone.", "module.encoder_q.", "encoder_q.", "module.", "")
"""Key prefixes of a network in a file: checkpoints of this package, also with a `CategoryNetwork`; MoCo's query
network, with and without DataParallel (facebookresearch/moco); any network in DataParallel; a plain state dict."""

HEAD, NORMALIZATION, EMBEDDINGS = "head.", ("mean", "std"), "category_embeddings."


def load_pretrained(network: Network, path: str) -> str:
    """Load the backbone of a file into a network, completely or not at all.

    The names in the file may be the network's own or those of public checkpoints (`Network.own_key`), under any of
    `PREFIXES`; where several fit, the one with the most tensors is used. Never loaded are

    * the head: it was trained for another task, or is trained from scratch;
    * mean and std of the channels: they describe the present images, not those of the file;
    * embeddings of categories: their values are those of the present data.

    Args:
        network: Network to load the weights into, in place.
        path: File or URL of a state dict, or of a checkpoint that contains one. No code in it is executed.

    Returns:
        A report for the log: what was loaded, what was not and why, and what else the file contains.

    Raises:
        SettingsError: The file cannot be read, has none of the backbone's tensors, lacks some of them, or has them in
            other shapes. (A file with a part of the backbone is usually of another architecture; a network that loaded
            it would train without any error.)
    """
    state = read_state_dict(path)
    own = network.state_dict()
    backbone = [key for key in own if not key.startswith((HEAD, EMBEDDINGS)) and key not in NORMALIZATION]
    prefix, names = max(
        ((prefix, _names_in_file(network, set(backbone), state, prefix)) for prefix in PREFIXES),
        key=lambda x: len(x[1]),
    )
    if not names:
        raise SettingsError(
            f"pretrained {path!r}: none of its {len(state)} tensors is of this {type(network).__name__}'s backbone; "
            f"it has {_some(list(state))}; the backbone has {_some(backbone)} (known prefixes: "
            f"{', '.join(filter(None, PREFIXES))}); name the network that was trained, or rename the tensors"
        )
    load_weights(
        network, {key: state[name] for key, name in names.items()}, path, keep=(HEAD, EMBEDDINGS, *NORMALIZATION)
    )
    return _report(path, prefix, list(own), names, list(state))


def _names_in_file(network: Network, backbone: set[str], state: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    """Map the network's name of each backbone tensor under the prefix to its name in the file."""
    names = {}
    for name in state:
        if name.startswith(prefix):
            key = name.removeprefix(prefix)
            names[key if key in backbone else network.own_key(key)] = name
    return {key: name for key, name in names.items() if key in backbone}


def _report(path: str, prefix: str, own: list[str], names: dict[str, str], in_file: list[str]) -> str:
    left = {
        "the head starts anew": [key for key in own if key.startswith(HEAD)],
        "channel statistics of the data": list(NORMALIZATION),
        "the embeddings start anew": [key for key in own if key.startswith(EMBEDDINGS)],
        "not in the file, and without effect": [key for key in own if key.endswith(COUNTER) and key not in names],
    }
    unused = sorted(set(in_file) - set(names.values()))
    parts = [
        f"pretrained {path}: {len(names)} of {len(own)} tensors loaded" + (f" from {prefix!r}" if prefix else ""),
        "not loaded: " + ", ".join(f"{_some(keys)} ({why})" for why, keys in left.items() if keys),
        f"unused in the file: {_some(unused)}" if unused else "nothing else in the file",
    ]
    return "; ".join(parts)


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
