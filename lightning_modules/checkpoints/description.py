"""Descriptions of objects as plain data, by which a checkpoint says which method and network it contains.

A description has the form of a configuration, `{"class_path": ..., "init_args": {...}}`, and only refers to classes by
name. No code is ever written to a file.
"""

import difflib
import inspect
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Self


class NotPlainData(Exception):
    """A value cannot be expressed in a configuration, as a function or a module; the message describes the value."""


class _SignatureOfInit:
    """A descriptor that makes `inspect.signature` of a class return that of `__init__`, not that of `__new__`."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        signature = inspect.signature(owner.__init__)  # type: ignore[misc]  # that of this class, not of an instance
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Described:
    """An object that remembers the arguments it was made with.

    Attributes:
        init_args: Given arguments that can be expressed as plain data, by name.
        unknown: Descriptions of the other given arguments, in words, by name.
    """

    __signature__ = _SignatureOfInit()
    init_args: dict[str, Any]
    unknown: dict[str, str]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments before `__init__` runs.

        Raises:
            TypeError: The class has no argument of that name.
        """
        check_keywords(cls, kwargs)
        made = super().__new__(cls)
        object.__setattr__(made, "init_args", {})  # before `nn.Module.__init__`
        object.__setattr__(made, "unknown", {})
        for name, value in _named(cls, args, kwargs).items():
            made.remember(name, value)
        return made

    def remember(self, name: str, value: Any) -> None:
        """Record an argument, in place of an earlier record of the same name.

        An argument that a subclass passes to its base, and does not take itself, is not recorded.
        """
        parameters = inspect.signature(type(self)).parameters
        if name not in parameters and all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
            return
        self.init_args.pop(name, None)
        self.unknown.pop(name, None)
        try:
            self.init_args[name] = described(value)
        except NotPlainData as error:
            self.unknown[name] = str(error)

    def description(self) -> dict[str, Any]:
        """Return the class and the arguments as plain data.

        Raises:
            NotPlainData: An argument cannot be expressed as plain data.
        """
        for name, what in self.unknown.items():
            raise NotPlainData(f"a {type(self).__name__} whose {name} is {what}")
        return {"class_path": class_path(type(self)), "init_args": self.init_args}


def check_keywords(kind: type, names: Iterable[str]) -> None:
    """Refuse names that neither a class nor its bases take; Python would name the base that got them.

    Raises:
        TypeError: A name is unknown; the message suggests a similar one.
    """
    known: set[str] = set()
    for base in (base for base in kind.__mro__ if "__init__" in vars(base)):
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]  # of this very class
        known |= {parameter.name for parameter in parameters} - {"self"}
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
        if base.__module__.split(".")[0] not in ("tailmatch", "torch", "pytorch_lightning", "builtins"):
            return  # a class of the user's may take any name
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise TypeError(
                f"{kind.__name__} has no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )


def described(value: Any) -> Any:
    """Convert a value to plain data; classes and `Described` objects become their class path and arguments.

    Raises:
        NotPlainData: The value cannot be expressed as plain data.
    """
    if isinstance(value, Described):
        return value.description()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {key: described(item) for key, item in value.items()}
    if isinstance(value, type):
        return {"class_path": class_path(value), "init_args": {}}
    if isinstance(value, partial) and isinstance(value.func, type) and not value.args:
        return {"class_path": class_path(value.func), "init_args": described(value.keywords)}
    if inspect.isroutine(value):
        raise NotPlainData(f"the function {value.__name__}")
    raise NotPlainData(f"a {type(value).__module__}.{type(value).__qualname__}")


def class_path(kind: type) -> str:
    """Return the shortest path by which a class can be imported, that of the package that exports it.

    Raises:
        NotPlainData: The class cannot be imported, since it is defined in a script, a notebook or a function.
    """
    parts = kind.__module__.split(".")
    for count in range(1, len(parts) + 1):
        module = ".".join(parts[:count])
        if module != "__main__" and getattr(sys.modules.get(module), kind.__qualname__, None) is kind:
            return f"{module}.{kind.__qualname__}"
    raise NotPlainData(f"the class {kind.__qualname__} of {kind.__module__}, which cannot be imported")


def _named(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return arguments by name; none if they do not fit the signature: then `__init__` raises, or a copy skips it."""
    signature = inspect.signature(kind.__init__)  # type: ignore[misc]  # of this very class
    try:
        arguments = signature.bind_partial(None, *args, **kwargs).arguments
    except TypeError:
        return {}
    named: dict[str, Any] = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= arguments.get(name, {})
        elif parameter.kind is parameter.VAR_POSITIONAL:
            named |= _of_base(kind, arguments.get(name, ()))
        elif name in arguments:
            named[name] = arguments[name]
    return named


def _of_base(kind: type, args: tuple[Any, ...]) -> dict[str, Any]:
    """Arguments by name of a constructor `(*args, ...)`, as those of the one that `super().__init__(*args)` reaches."""
    bases = [base for base in kind.__mro__ if "__init__" in vars(base)][1:]
    return _named(bases[0], args, {}) if args and bases else {}
