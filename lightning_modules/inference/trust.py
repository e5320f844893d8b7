"""What the settings in a checkpoint may name: classes of this package, unless the user trusts the file.

A configuration is a program: jsonargparse imports whatever it names and calls it with the arguments beside it. So while
settings of a checkpoint are parsed and built, every import of a name passes `check_name` first.
"""

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import _actions, _typehints
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from torch.optim import Optimizer, lr_scheduler

from tailmatch import lazy
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.weights import refuse_weights
from tailmatch.lightning_modules.inference.class_paths import import_public_classes, public_class, public_path

_MEND = (
    "If the file is yours, or you trust its maker, add --trust_checkpoint true, or in Python trust=True "
    "(tailmatch.load, load_from_checkpoint) or tailmatch.trust_checkpoints()"
)

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")

_WHOLE = (LightningModule, LightningDataModule, Callback)
"""Classes that read and write files or run a training: never an argument of another class."""

_SCHEDULES = (lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau)


@dataclass(frozen=True)
class Stranger:
    """A checkpoint that the user does not vouch for.

    Attributes:
        source: The path of the checkpoint, for messages.
        roots: Names of the method, the data module and the callbacks that its settings begin with.
        typed: Names that the user typed or configured, see `names_in`: these may be anything.
        resolved: Paths of the classes that short names among them turned out to mean.
    """

    source: str
    roots: frozenset[str] = frozenset()
    typed: frozenset[str] = frozenset()
    resolved: set[str] = field(default_factory=set)

    def may_name(self, class_path: str) -> bool:
        """Tell whether a name may be imported; the check itself imports only packages of ours."""
        path = public_path(class_path)
        if path in self.resolved or path in self.typed or class_path in self.typed:
            return True
        found = public_class(path)
        if found is not None:
            return path in self.roots or not issubclass(found, _WHOLE)
        return path in _OF_TYPES or _is_of_torch(path)


_OF_TYPES = ("typing.Union", "types.UnionType")
"""What jsonargparse itself looks up where the type of an argument is a union; neither can be called."""


class _Refused(BaseException):
    """A name that is not imported. No `Exception`: jsonargparse catches these, and tries the value as another type."""


_stranger: ContextVar[Stranger | None] = ContextVar("stranger", default=None)
_trust: ContextVar[bool] = ContextVar("trust", default=False)


@contextmanager
def trust_checkpoints(trust: bool = True) -> Iterator[None]:
    """Within this context, settings of checkpoints may name anything that can be imported: code of theirs may run.

    Args:
        trust: False changes nothing.
    """
    token = _trust.set(trust or _trust.get())
    try:
        yield
    finally:
        _trust.reset(token)


@contextmanager
def settings_from(stranger: Stranger | None) -> Iterator[None]:
    """Within this context, nothing is imported by name but what a stranger's settings may name.

    Networks get no pretrained weights: what a checkpoint contains is loaded later, and it names no other file.

    Args:
        stranger: The checkpoint; None changes nothing.

    Raises:
        SettingsError: Something else was named.
    """
    mend_imports()
    stranger = None if _trust.get() else stranger
    token = _stranger.set(stranger)
    reason = "" if stranger is None else f"the settings in checkpoint {stranger.source!r} ask for them. {_MEND}"
    try:
        with refuse_weights(reason):
            yield
    except _Refused as refused:
        raise SettingsError(str(refused)) from None
    finally:
        _stranger.reset(token)


def check_name(class_path: str) -> None:
    """Stop before a name is imported that the current settings may not name; `settings_from` raises the error."""
    stranger = _stranger.get()
    if stranger is not None and not stranger.may_name(class_path):
        raise _Refused(
            f"the settings in checkpoint {stranger.source!r} cannot be built: {class_path} is no public class of this "
            f"package that may be there, and any other name may run code. {_MEND}; or type that name yourself"
        )


def class_named(class_path: str) -> Any:
    """Import the class or function that a `class_path` names.

    Raises:
        SettingsError: The module does not exist, or it has nothing of that name.
    """
    check_name(class_path)
    module, _, name = public_path(class_path).rpartition(".")
    try:
        with saying_where(module):
            return getattr(importlib.import_module(module), name)
    except SettingsError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"class_path is {class_path!r}, and there is no such class: {error}") from error


def names_in(texts: Iterable[str]) -> frozenset[str]:
    """All names, dotted or not, in words that the user typed and in files that the user named, as public paths."""
    return frozenset(public_path(name) for text in texts for name in _DOTTED.findall(text))


def strip_names(settings: Any, names: Iterable[str]) -> Any:
    """Return settings without the entries of some names, at any depth."""
    unwanted = frozenset(names)
    if isinstance(settings, list):
        return [strip_names(value, unwanted) for value in settings]
    if not isinstance(settings, Mapping):
        return settings
    return {name: strip_names(value, unwanted) for name, value in settings.items() if name not in unwanted}


def _is_of_torch(path: str) -> bool:
    """Tell whether a path is that of an optimizer or a schedule of PyTorch, which is already imported."""
    module, _, name = path.rpartition(".")
    if module not in ("torch.optim", "torch.optim.lr_scheduler"):
        return False
    found = vars(sys.modules[module]).get(name)
    return inspect.isclass(found) and issubclass(found, (Optimizer, *_SCHEDULES))


# jsonargparse imports what a value names by these two functions only


def resolve_class_path_by_name(cls: Any, name: str) -> str:
    """Accept a class of this package by its path in former versions, and return its public path."""
    if "." not in name:
        import_public_classes()
    path = public_path(UPSTREAM["resolve_class_path_by_name"](cls, _AMBIGUOUS.get(name, name)))
    stranger = _stranger.get()
    if stranger is not None and "." not in name and name in stranger.typed:
        stranger.resolved.add(path)
    return path


_AMBIGUOUS = {"ReduceLROnPlateau": "torch.optim.lr_scheduler.ReduceLROnPlateau"}
"""Short names of several classes, and the one that is meant: Lightning has a subclass of the same name."""


def import_object(name: str, *args: Any, **kwargs: Any) -> Any:
    """Accept these paths where jsonargparse imports a name directly, and check the name before it is imported."""
    if isinstance(name, str):
        name = public_path(name)
        if "." in name:  # else it will be refused
            check_name(name)
    with saying_where(str(name).rpartition(".")[0]):
        return UPSTREAM["import_object"](name, *args, **kwargs)


@contextmanager
def saying_where(module: str) -> Iterator[None]:
    """Let an error that a module of the user raises while it is imported name the module, the file and the line.

    Raises:
        SettingsError: The module raises an error. One that is not there raises what Python does.
    """
    try:
        yield
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(p in f.filename for p in _IMPORTING)]
        if isinstance(error, SyntaxError):
            place = f"{error.filename}, line {error.lineno}"
        elif frames:
            place = f"{frames[-1].filename}, line {frames[-1].lineno}"
        else:
            raise
        raise SettingsError(f"{module} cannot be imported: {type(error).__name__}: {error} ({place})") from error


_IMPORTING = (__file__, lazy.__file__, "jsonargparse", "importlib")
"""Files whose frames lie between the name of a module and its code."""


def mend_imports() -> None:
    """Replace the functions of jsonargparse; calling it again changes nothing."""
    vars(_typehints).update(IMPORTS)
    vars(_actions).update(import_object=import_object)


IMPORTS: dict[str, Any] = {function.__name__: function for function in (resolve_class_path_by_name, import_object)}
UPSTREAM: dict[str, Any] = {name: getattr(_typehints, name) for name in IMPORTS}
