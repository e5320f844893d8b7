"""Pretrained weights of a backbone or a whole classifier: find the tensors in a file and load them."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.adapters import is_of_adapter
from tailmatch.lightning_modules.checkpoints.weights import COUNTER, load_weights, read_state_dict
from tailmatch.lightning_modules.networks.adapters import adapter_tensors
from tailmatch.lightning_modules.networks.network import Network, NormalizedLinear

PREFIXES = ("network.", "network.backbone.", "module.encoder_q.", "encoder_q.", "module.", "")
"""Key prefixes of a network in a file: checkpoints of this package, also with a `CategoryNetwork`; MoCo's query
network, with and without DataParallel (facebookresearch/moco); any network in DataParallel; a plain state dict."""

HEADS = ("head", "fc", "linear", "classifier", "_fc")
"""Names of a classifier's last layer in files of this package, torchvision, imbalanced-semi-self and EfficientNet."""

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
    prefix, names = _load_backbone(network, state, path)
    return _report(path, prefix, list(network.state_dict()), names, list(state))


def load_classifier(network: Network, path: str, order: Sequence[int]) -> str:
    """Load the backbone of a file into a network, as `load_pretrained` does, and its head.

    Args:
        network: Network to load the weights into, in place.
        path: File or URL of a state dict, or of a checkpoint that contains one. No code in it is executed.
        order: The class here of each class of the file, a permutation of 0 to K - 1.

    Returns:
        A report for the log.

    Raises:
        SettingsError: `load_pretrained` would refuse the file, or it has no head of this kind and size.
    """
    state = read_state_dict(path)
    prefix, names = _load_backbone(network, state, path)
    places = [f"{prefix}{name}." for name in HEADS] + [f"{name}." for name in HEADS]
    place = next((place for place in places if f"{place}weight" in state), None)
    if place is None:
        raise SettingsError(f"weights {path!r} have no head: none of {', '.join(f'{p}weight' for p in places[:5])}")
    head = {key.removeprefix(place): value for key, value in state.items() if key.startswith(place)}
    if isinstance(network.head, NormalizedLinear):  # LDAM-DRW's NormedLinear has a column for each class
        head["weight"] = head["weight"].t()
    if len(head["weight"]) != len(order):
        raise SettingsError(f"weights {path!r} have {len(head['weight'])} classes, and the data {len(order)}")
    of_class = sorted(range(len(order)), key=order.__getitem__)
    load_weights(network.head, {key: value[of_class] for key, value in head.items()}, path)
    return f"weights {path}: {len(names)} tensors of the backbone and the head {place.removesuffix('.')!r} loaded"


def _load_backbone(network: Network, state: Mapping[str, Tensor], path: str) -> tuple[str, dict[str, str]]:
    """Load the backbone; return the prefix of its names in the file, and these names by those of the network."""
    kept = (HEAD, EMBEDDINGS, *NORMALIZATION, *adapter_tensors(network))
    backbone = [key for key in network.state_dict() if not key.startswith((HEAD, EMBEDDINGS)) and key not in kept]
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
    load_weights(network, {key: state[name] for key, name in names.items()}, path, keep=kept)
    return prefix, names


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
        "the head starts from random weights": [key for key in own if key.startswith(HEAD)],
        "channel statistics of the data": list(NORMALIZATION),
        "the embeddings start from random weights": [key for key in own if key.startswith(EMBEDDINGS)],
        "adapters start without effect": [key for key in own if is_of_adapter(key)],
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
