"""Names that a user may have meant, for messages."""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from functools import cache

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, callbacks
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tailmatch.lightning_modules.inference.class_paths import public_names
from tailmatch.lightning_modules.networks import Network
from tailmatch.lightning_modules.views import View


def similar(word: str, known: Iterable[str]) -> list[str]:
    """List at most three names that are similar to a word, in upper or lower case; the most similar one first."""
    by_lower = {name.lower(): name for name in known}
    return [by_lower[name] for name in difflib.get_close_matches(word.lower(), by_lower, n=3)]


def class_names_for(option: str) -> list[str]:
    """List the names of classes that an option may take: those of this package, and PyTorch's or Lightning's."""
    kinds = {
        "optimizer": (torch.optim, Optimizer),
        "lr_scheduler": (torch.optim.lr_scheduler, LRScheduler),
        "callbacks": (callbacks, Callback),
    }
    module, kind = kinds.get(option.rpartition(".")[2], (None, None))
    named = vars(module).items() if module else ()
    return public_names() + [name for name, found in named if inspect.isclass(found) and issubclass(found, kind or ())]


def options_named(word: str, known: Iterable[str]) -> list[str]:
    """List the options that end in a word, or in a similar one, such as `model.optimizer` for `optimizer`.

    Args:
        word: The last part of an option, as typed.
        known: Options of the command, with dots.
    """
    by_end: dict[str, list[str]] = {}
    for option in [*known, *(f"{place}.{name}" for place, names in _arguments().items() for name in names)]:
        if "." in option:
            by_end.setdefault(option.rpartition(".")[2], []).append(option)
    word = _ELSEWHERE.get(word, word)
    ends = [word] if word in by_end else similar(word, by_end)
    return [option for end in ends for option in by_end[end]]


_ELSEWHERE = {"batch_size": "labeled_batch_size", "epochs": "max_epochs", "gpus": "devices", "learning_rate": "lr"}
"""What other programs call an option."""


@cache
def _arguments() -> Mapping[str, list[str]]:
    """List the arguments of classes by the option that takes the class."""
    kinds = {
        "model": LightningModule,
        "data": LightningDataModule,
        "model.network": Network,
        "model.optimizer": Optimizer,
        "model.strong": View,
    }
    return {place: sorted(_arguments_of(kind)) for place, kind in kinds.items()}


def _arguments_of(kind: type) -> set[str]:
    names = {name for name in inspect.signature(vars(kind).get("__init__", object)).parameters if name not in _NEVER}
    if kind is Optimizer:
        return {"lr", "momentum", "weight_decay"}
    subclasses: list[type] = kind.__subclasses__()
    return names.union(*(_arguments_of(each) for each in subclasses))


_NEVER = ("self", "args", "kwargs", "num_classes")
