"""Public names that a package imports when they are first used (PEP 562).

So a module takes only the time of its own imports: `tailmatch.callbacks.remedies.darp.solver` lies below a package of
callbacks, and imports no Lightning.
"""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def lazily(
    package: str, homes: Mapping[str, str], packages: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions `__getattr__` and `__dir__` of a package.

    The package says the same to type checkers by imports under `TYPE_CHECKING`. No public name may be that of a module
    of the package, since Python sets a module that it imports as an attribute of the package.

    Args:
        package: The `__name__` of the package.
        homes: The module that defines each public name.
        packages: The names of packages in it that have public names of their own.
    """

    def __getattr__(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        if name in packages:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*vars(import_module(package)), *homes, *packages})

    return __getattr__, __dir__
