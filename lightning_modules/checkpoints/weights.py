"""Pretrained weights: read or download a state dict, and load it into a network without its classifier.

No code from a file is ever executed: everything is read with `weights_only=True`.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.remote_files import local_file

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Channel means of ImageNet in [0, 1], as torchvision and efficientnet_pytorch use them."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel standard deviations of ImageNet in [0, 1], as torchvision and efficientnet_pytorch use them."""

COUNTER = "num_batches_tracked"
"""BatchNorm's counter: of no use without `momentum=None`, and weights saved before PyTorch 0.4.1 lack it."""


def read_file(path: str, mapped: bool = False) -> object:
    """Read what `torch.save` wrote of tensors and plain values.

    Args:
        path: a file or a URL (see `remote_files`).
        mapped: leave the tensors on the disk until they are used, where the file's format can.

    Raises:
        SettingsError: if there is no such file, or it holds something else.
    """
    file = local_file(path)
    if not file.is_file():
        raise SettingsError(f"weights file {path!r} does not exist")
    try:
        mmap = mapped and zipfile.is_zipfile(file)
        content: object = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise SettingsError(f"weights file {path!r} cannot be read as a state dict: {_reason(error)}") from error
    return content


def read_state_dict(path: str) -> Mapping[str, Tensor]:
    """Read a file that holds a dict from parameter names to tensors, alone or as the `state_dict` of a checkpoint.

    Raises:
        SettingsError: if there is no such file, or it holds something else.
    """
    content = read_file(path)
    nested = content.get("state_dict") if isinstance(content, Mapping) else None
    return _checked(nested if isinstance(nested, Mapping) else content, path)


def download_state_dict(url: str, check_hash: bool) -> Mapping[str, Tensor]:
    """Fetch a state dict into torch hub's cache, or read it from there.

    Args:
        url: where it is published.
        check_hash: whether the file's name carries a hash of its content that must match.

    Raises:
        SettingsError: if it cannot be fetched or read; says where to put the file by hand.
    """
    try:
        state = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=check_hash, weights_only=True
        )
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
        raise SettingsError(
            f"pretrained weights {url} could not be fetched or read ({error}). Without a network, download "
            f"that file elsewhere and put it at {file}, or give the path of a local copy"
        ) from error
    return _checked(state, url)


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], source: str, skip: tuple[str, ...] = (), keep: tuple[str, ...] = ()
) -> None:
    """Load a state dict into a module in place.

    Args:
        module: what to fill; all of its keys must be in the state dict, with the same shapes.
        state: the state dict.
        source: the file or address it came from, for the error message.
        skip: key prefixes in the state dict to leave out, such as the classifier's.
        keep: key prefixes in the module that may be missing and then stay as they are.

    Raises:
        SettingsError: if keys or shapes do not match; nothing is loaded then.
    """
    kept = OrderedDict((key, value) for key, value in state.items() if not key.startswith(skip))
    own = module.state_dict()
    # Versions of the modules' layouts (MNASNet insists on its own); an ordinary dict has none.
    kept._metadata = getattr(state, "_metadata", own._metadata)  # type: ignore[attr-defined]
    missing = [key for key in own if key not in kept and not key.startswith(keep) and not key.endswith(COUNTER)]
    unexpected = [key for key in kept if key not in own]
    reshaped = [
        f"{key} {list(kept[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in kept and kept[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {kind}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if keys
    ]
    if problems:
        raise SettingsError(f"weights {source!r} do not fit the network; keys {'; '.join(problems)}")
    module.load_state_dict(kept, strict=False)


def _reason(error: Exception) -> str:
    """Why a file was refused; of a file with more than tensors, what it holds and how to get at the tensors."""
    foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
    if foreign is None:
        return str(error)
    return (
        f"it holds {foreign[1]}, and only tensors and plain values are read, so that no code in a file is ever "
        "executed. If you trust the file, convert it once in Python: "
        "torch.save(torch.load(old, weights_only=False)['state_dict'], new)"
    )


def _checked(state: object, source: str) -> Mapping[str, Tensor]:
    if not isinstance(state, Mapping) or not state:
        raise SettingsError(f"weights {source!r} hold a {type(state).__name__}; they must hold a dict of tensors")
    wrong = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if wrong:
        raise SettingsError(f"weights {source!r} hold {wrong[:3]}, no tensors; they must hold tensors alone")
    return state
