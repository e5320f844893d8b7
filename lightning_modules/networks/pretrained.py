"""Beginning with the weights of another training: which tensors of a file are the backbone's."""

from collections.abc import Mapping

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.weights import COUNTER, load_weights, read_state_dict
from tailmatch.lightning_modules.networks.network import Network

PREFIXES = ("network.", "network.backbone.", "module.encoder_q.", "encoder_q.", "module.", "")
"""Where files keep the network: this package's checkpoints, and those of a `CategoryNetwork`; MoCo's query network,
with and without DataParallel around it (facebookresearch/moco); anything in DataParallel; a plain state dict."""

HEAD, NORMALIZATION, EMBEDDINGS = "head.", ("mean", "std"), "category_embeddings."


def load_pretrained(network: Network, path: str) -> str:
    """Give a network the backbone of a file, whole or not at all.

    The names in the file may be the network's own or those of public checkpoints (`Network.own_key`), under any of
    `PREFIXES`; where several fit, the one with most tensors. Never loaded are

    * the head: the task that it was trained for is another one, or starts anew;
    * mean and std of the channels: they describe the images that are fed, not those of the file;
    * embeddings of categories: their values are those of the data.

    Args:
        network: Gets the weights in place.
        path: File with a state dict or a checkpoint that has one; no code in it is executed.

    Returns:
        What was loaded, what was not and why, and what else was in the file, for the log.

    Raises:
        SettingsError: The file cannot be read, has none of the backbone's tensors, lacks some of them, or has them in
            other shapes. (A part of a backbone is most often another architecture, and trains without a complaint.)
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
    """The network's own name of each backbone tensor that lies under the prefix, and its name in the file."""
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
