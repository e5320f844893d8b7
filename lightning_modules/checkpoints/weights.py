"""Pretrained weights: read or download a state dict, and load it into a network without its classifier.

No code from a file is ever executed: everything is read with `weights_only=True`.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.adapters import merged_adapters
from tailmatch.lightning_modules.checkpoints.archives import check_archive
from tailmatch.lightning_modules.checkpoints.differences import differing_tensors
from tailmatch.lightning_modules.checkpoints.remote_files import is_url, local_file, shown_url
from tailmatch.lightning_modules.training.finite import check_file, infinite_by_design

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Channel means of ImageNet in [0, 1], as torchvision and efficientnet_pytorch use them."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel standard deviations of ImageNet in [0, 1], as torchvision and efficientnet_pytorch use them."""

SAFETENSORS = ".safetensors"
"""Suffix of files that hold tensors alone."""

COUNTER = "num_batches_tracked"
"""BatchNorm's counter, which is unused without `momentum=None` and missing in weights saved before PyTorch 0.4.1."""


_refusal: ContextVar[str] = ContextVar("refusal", default="")


class NotFetchedError(SettingsError):
    """Published weights could not be downloaded."""


@contextmanager
def refuse_weights(reason: str) -> Iterator[None]:
    """Within this context, no state dict is downloaded or read; `read_file` still reads.

    Args:
        reason: The message of the error; empty allows them.

    Raises:
        SettingsError: A state dict was asked for.
    """
    token = _refusal.set(reason)
    try:
        yield
    finally:
        _refusal.reset(token)


def check_weights_allowed(source: str) -> None:
    """Refuse to download or read a state dict within `refuse_weights`."""
    reason = _refusal.get()
    if reason:
        raise SettingsError(f"weights {source!r} are not read: {reason}")


def read_file(path: str, mapped: bool = False) -> object:
    """Read a file of tensors and plain values, written by `torch.save`; or of tensors alone, `.safetensors`.

    Args:
        path: Path or URL of the file (see `local_file`).
        mapped: Whether to leave the tensors on disk until they are used, if the file's format supports it.

    Raises:
        SettingsError: There is no such file, it is damaged, or it contains something else.
    """
    file = local_file(path)
    if file.is_dir():
        best = file / "checkpoints/best.ckpt"
        example = f", such as {best}" if best.is_file() else ""
        raise SettingsError(f"weights file {path!r} is a folder: give a file in it{example}")
    if not file.is_file():
        raise SettingsError(f"weights file {path!r} does not exist")
    if file.suffix == SAFETENSORS:
        return read_safetensors(path, file)
    _check_copy(path, file)
    try:
        mmap = mapped and zipfile.is_zipfile(file)
        content: object = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # of a file of another kind, torch raises whatever its first bytes lead to
        raise SettingsError(f"weights file {path!r} cannot be read as a state dict: {_reason(error)}") from error
    return content


def read_safetensors(path: str, file: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file, whose format has no room for code.

    Args:
        path: Path or URL that was given, for messages.
        file: The file.

    Raises:
        SettingsError: safetensors is not installed, or the file is damaged.
    """
    if find_spec("safetensors") is None:
        raise SettingsError(f"weights file {path!r} needs safetensors: pip install 'tailmatch[timm]'")
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except Exception as error:  # of a damaged file, also KeyError for an unknown type
        raise SettingsError(f"weights file {path!r} cannot be read as safetensors: {error}") from error


def read_state_dict(path: str) -> Mapping[str, Tensor]:
    """Read a file that holds a dict from parameter names to tensors, alone or as the `state_dict` of a checkpoint.

    Adapters are merged into the weights that they change.

    Raises:
        SettingsError: There is no such file, it contains something else, or `refuse_weights` holds.
    """
    check_weights_allowed(path)
    content = read_file(path)
    nested = content.get("state_dict") if isinstance(content, Mapping) else None
    return merged_adapters(_checked(nested if isinstance(nested, Mapping) else content, path))


def download_state_dict(url: str, check_hash: bool) -> Mapping[str, Tensor]:
    """Download a state dict into torch hub's cache, or read it from there.

    Args:
        url: URL of the published file.
        check_hash: Whether the file's name contains a hash that its content must match.

    Raises:
        NotFetchedError: The file cannot be downloaded or read; the message says where to put the file by hand.
    """
    check_weights_allowed(url)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if file.is_file():
        check_archive(file)
    try:
        state = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=check_hash, weights_only=True
        )
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise NotFetchedError(
            f"pretrained weights {url} could not be fetched or read ({error}). Without a network, download "
            f"that file elsewhere and put it at {file}, or give the path of a local copy"
        ) from error
    return _checked(state, url)


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], source: str, skip: tuple[str, ...] = (), keep: tuple[str, ...] = ()
) -> None:
    """Load a state dict into a module in place.

    Args:
        module: Module to load into; all of its keys must be in the state dict, with the same shapes.
        state: State dict to load.
        source: File or URL of the state dict, for the error message.
        skip: Key prefixes of the state dict to leave out, such as the classifier's.
        keep: Key prefixes of the module that may be missing in the state dict; their tensors stay as they are.

    Raises:
        SettingsError: Keys or shapes do not match; nothing is loaded then.
        NotFiniteError: A tensor to load is not finite; nothing is loaded then.
    """
    kept = OrderedDict((key, value) for key, value in state.items() if not key.startswith(skip))
    own = module.state_dict()
    # Versions of the modules' layouts (MNASNet requires its own); an ordinary dict has none.
    kept._metadata = getattr(state, "_metadata", own._metadata)  # type: ignore[attr-defined]
    missing = [key for key in own if key not in kept and not key.startswith(keep) and not key.endswith(COUNTER)]
    needed = {key: tensor for key, tensor in own.items() if key in missing or key in kept}
    problems = differing_tensors(needed, kept)
    if problems:
        raise SettingsError(f"weights {source!r} do not fit the network; keys {problems}")
    check_file(kept, f"weights file {source!r}", infinite_by_design(module))
    module.load_state_dict(kept, strict=False)


def _check_copy(path: str, file: Path) -> None:
    """Check the file of a path; a damaged copy of a URL is removed, so that it is fetched anew."""
    try:
        check_archive(file)
    except SettingsError as error:
        if not is_url(path):
            raise
        file.unlink(missing_ok=True)
        raise SettingsError(f"the file from {shown_url(path)} is not a checkpoint: {error}") from error


def _reason(error: Exception) -> str:
    """Explain why a file cannot be read; if it holds more than tensors, say what, and how to extract the tensors."""
    foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
    if foreign is None:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return (
        f"it holds {foreign[1]}, and only tensors and plain values are read, so that no code in a file is ever "
        "executed. If you trust the file, convert it once in Python: "
        "torch.save(torch.load(old, weights_only=False)['state_dict'], new)"
    )


def not_tensors(state: Mapping[object, object]) -> list[object]:
    """Return the keys of a state dict that are no names, or have no dense tensor with values.

    The extra state of a module may be any value.
    """
    named = {key: value for key, value in state.items() if not str(key).endswith("_extra_state")}
    return [key for key, value in named.items() if not (isinstance(key, str) and _is_dense(value))]


def _is_dense(value: object) -> bool:
    if not isinstance(value, Tensor) or value.is_nested or value.is_quantized or value.is_meta:
        return False
    return value.layout is torch.strided


def _checked(state: object, source: str) -> Mapping[str, Tensor]:
    if not isinstance(state, Mapping) or not state:
        raise SettingsError(f"weights {source!r} hold a {type(state).__name__}; they must hold a dict of tensors")
    wrong = not_tensors(state)
    wrong += [key for key, value in state.items() if key not in wrong and not isinstance(value, Tensor)]
    if wrong:
        raise SettingsError(f"weights {source!r} hold {wrong[:3]}, no tensors; they must hold tensors alone")
    return state
