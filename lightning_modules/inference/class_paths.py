"""The meaning of a `class_path` in configurations and checkpoints, including those of former versions.

The public path of a class of this package is the package that exports it, and its name:
`tailmatch.lightning_modules.FixMatch`, `tailmatch.callbacks.DARP`. In former versions, paths did not begin with
`tailmatch.`, and some of them name a module (`lightning_modules.networks.cifar_resnet.CifarResNet`). Modules have moved
since, but classes have kept their names. A class of another package has its ordinary path.
"""

import importlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import tailmatch

_PACKAGES = ("lightning_modules", "callbacks", "datamodules")


def public_path(class_path: str) -> str:
    """Return the public path of a class of this package, also from a path of a former version.

    The path of any other class is returned unchanged. `callbacks.DARP` names a class of this package, and so does
    `callbacks.darp.DARP`, since a folder of that name defines DARP. If the user has another package `callbacks`,
    `callbacks.mine.DARP` and `callbacks.Mine` name classes of the user.
    """
    parts = class_path.removeprefix("tailmatch.").split(".")
    if parts[0] not in _PACKAGES or len(parts) == 1:
        return class_path
    *places, name = parts
    with_module = class_path.startswith("tailmatch.") or _is_the_users(places[0])
    for package in sorted(_PACKAGES, key=lambda other: other != places[0]):  # some were moved from one to another
        public, defined = _public_classes(package).get(name, ("", ""))
        if public and (not with_module or any(_in_order(places, path.split(".")) for path in (public, defined))):
            return public
    return class_path if with_module else f"tailmatch.{class_path}"


def with_public_paths(settings: Any) -> Any:
    """Return settings of a configuration in which every `class_path` is replaced by the public path."""
    if isinstance(settings, list):
        return [with_public_paths(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    return {
        name: public_path(value) if name == "class_path" and isinstance(value, str) else with_public_paths(value)
        for name, value in settings.items()
    }


def public_class(path: str) -> type | None:
    """Return the class of a public path of this package; None for any other path, and for that of a function."""
    parts = path.split(".")
    if parts[0] != "tailmatch" or len(parts) < 3 or parts[1] not in _PACKAGES:
        return None
    if _public_classes(parts[1]).get(parts[-1], ("", ""))[0] != path:
        return None
    found = getattr(importlib.import_module(path.rpartition(".")[0]), parts[-1])
    return found if isinstance(found, type) else None


def import_public_classes() -> None:
    """Import all public classes of this package: jsonargparse finds short names among the classes that are imported."""
    public_names()


def public_names() -> list[str]:
    """Return the names of all public classes of this package."""
    return [name for package in _PACKAGES for name in _public_classes(package)]


@cache
def _public_classes(package: str) -> dict[str, tuple[str, str]]:
    """Return, by name, the public path and the defining module of what a package and its subpackages export."""
    top = importlib.import_module(f"tailmatch.{package}")
    folders = [module.name for module in iter_modules(top.__path__) if module.ispkg]
    inner = [importlib.import_module(f"{top.__name__}.{folder}") for folder in folders]
    found: dict[str, tuple[str, str]] = {}
    for exporting in (top, *inner):
        for name in getattr(exporting, "__all__", ()):
            found.setdefault(name, (f"{exporting.__name__}.{name}", getattr(exporting, name).__module__))
    return found


def _in_order(words: list[str], among: list[str]) -> bool:
    """Return whether `among` contains all `words` in the same order, possibly with others between them."""
    rest = iter(among)
    return all(word in rest for word in words)


def _is_the_users(package: str) -> bool:
    """Return whether `import package` would find another package than ours, which a checkout has in its folder."""
    spec = find_spec(package)
    found = [] if spec is None else spec.submodule_search_locations or [spec.origin or ""]
    ours = Path(tailmatch.__file__).parent / package
    return any(Path(path).resolve() != ours.resolve() for path in found)
