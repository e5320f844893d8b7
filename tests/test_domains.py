"""Every numeric argument of every public class refuses what lies outside its domain, with its own name."""

import importlib
import inspect
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tailmatch.callbacks.checkpoints import Checkpoints
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.heads import NCM
from tailmatch.lightning_modules.networks import CifarResNet, TimmNetwork, TorchvisionNetwork
from tests.trained_files import trained_file

PACKAGES = (
    "datamodules", "lightning_modules", "callbacks", "lightning_modules.losses", "lightning_modules.networks",
    "lightning_modules.views", "lightning_modules.heads", "lightning_modules.training", "lightning_modules.weightings",
)  # fmt: skip


SIZES = {
    "depth", "widen", "feature_dim", "num_classes", "queue_size", "dim", "projection_dim", "embedding_dim",
    "image_size", "size", "norm_splits", "width", "batches",
}  # fmt: skip
"""Arguments of which a billion may be what a user wants, and more memory than a test has."""


class Pixels(LabeledUnlabeledDataModule):
    """The smallest data module."""

    def __init__(self, **kwargs: Any) -> None:
        self.class_names = ["cat", "dog", "owl"]
        super().__init__(**kwargs)

    def load(self) -> Any:
        raise NotImplementedError


def public_classes() -> Iterator[type]:
    """All classes that a user makes, by the names that the packages export."""
    for package in PACKAGES:
        module = importlib.import_module(f"tailmatch.{package}")
        for name in module.__all__:
            cls = getattr(module, name)
            members = (getattr(cls, member, None) for member in dir(cls))
            abstract = any(getattr(member, "__isabstractmethod__", False) for member in members)
            abstract |= getattr(cls, "_is_protocol", False)
            if inspect.isclass(cls) and not abstract and cls.__init__ is not object.__init__:
                yield cls
    yield from (Pixels, Checkpoints)


def arguments(cls: type) -> dict[str, tuple[Any, bool]]:
    """The type of each argument of a class, also those that `**kwargs` passes on, and whether it has no default."""
    found: dict[str, tuple[Any, bool]] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        hints = typing.get_type_hints(base.__init__)
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        found = {p.name: (hints.get(p.name, Any), p.default is p.empty) for p in named} | found
        if len(named) == len(parameters):
            break
    return found


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union."""
    return (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )


def is_number(hint: Any) -> bool:
    return bool({int, float} & set(members(hint)))


def sequence_of(hint: Any) -> tuple[Any, ...] | None:
    """The element types of a sequence of numbers, with an ellipsis if it has any length."""
    for member in members(hint):
        if typing.get_origin(member) in (tuple, list, Sequence) and {int, float} & set(typing.get_args(member)):
            return typing.get_args(member)
    return None


def wrong_values(hint: Any) -> Iterator[Any]:
    """Values outside the domain of every numeric argument of this type."""
    kinds = members(hint)
    elements = sequence_of(hint)
    if is_number(hint):
        yield from (-1, math.nan, math.inf, -math.inf, True)
        yield from () if str in kinds else ("1",)
        yield from () if elements else ([1],)
        yield from () if float in kinds else (1.5,)
    if elements:
        any_length = elements[-1] is ... or len(elements) == 1
        others = [0.5] if any_length else [0.5] * (len(elements) - 1)
        yield from ([*others, value] for value in (math.nan, math.inf, "1", None, True, [0.5]))
        yield from () if any_length else ([*others, 0.5, 0.5], others)
        yield from () if str in kinds else ("0.5",)
        yield from () if is_number(hint) else (0.5,)


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Values of arguments by name, for those without a default, and smaller ones than the default for some others."""
    folder = tmp_path_factory.mktemp("domains")
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
    (folder / "cat.png").touch()
    (folder / "table.csv").write_text("image,target\ncat.png,cat\ndog.png,dog\n")
    network = CifarResNet(3, 8)
    file = trained_file(folder / "run.ckpt", network, {"depth": 8})
    weights = [nn.Parameter(torch.ones(2))]
    return {
        "num_classes": 3, "network": partial(CifarResNet, depth=8), "feature_dim": 8,
        "module": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)),
        "checkpoint": file, "checkpoints": [file, file], "levels": ["color"], "queue_size": 8, "head": NCM(),
        "root": str(folder), "table": str(folder / "table.csv"), "class_names": ["cat", "dog", "owl"], "image_size": 8,
        "images": np.zeros((6, 8, 8, 3), np.uint8), "targets": [0, 0, 1, 1, 2, 2],
        "labeled": [1, 1, 1], "share": 0.2, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1,
        "params": weights, "optimizer": torch.optim.SGD(weights, lr=0.1), "file": str(folder / "labels.npz"),
    }  # fmt: skip


SMALL_NETWORKS: dict[type, dict[str, Any]] = {
    TimmNetwork: {"name": "test_vit", "image_size": 32},
    TorchvisionNetwork: {"name": "shufflenet_v2_x0_5"},
}
SMALLER = {"network", "queue_size", "class_names", "image_size", "targets"}


def given_to(cls: type, known: Mapping[str, Any]) -> dict[str, Any]:
    """Valid arguments of a class, those that it needs and some more."""
    made = {name: known[name] for name, (_, needed) in arguments(cls).items() if needed or name in SMALLER}
    return made | SMALL_NETWORKS.get(cls, {})


def outcome(cls: type, name: str, value: Any, given: Mapping[str, Any]) -> str:
    """How a class takes a value: accepted, refused by the argument's name, or else what it raises."""
    try:
        cls(**{**given, name: value})
    except SettingsError as error:
        return "refused" if name in str(error) else f"refused without the name: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


CLASSES = pytest.mark.parametrize("cls", list(public_classes()), ids=lambda cls: cls.__name__)


@CLASSES
def test_a_value_outside_every_domain_is_refused_by_name(cls: type, known: dict[str, Any]) -> None:
    given = given_to(cls, known)
    wrong = [
        f"{name} {value!r}: {found}"
        for name, (hint, _) in arguments(cls).items()
        for value in wrong_values(hint)
        if (found := outcome(cls, name, value, given)) != "refused"
    ]
    assert wrong == []


@CLASSES
def test_a_value_at_an_end_is_accepted_or_refused_by_name(cls: type, known: dict[str, Any]) -> None:
    given = given_to(cls, known)
    wrong = [
        f"{name} {value!r}: {found}"
        for name, (hint, _) in arguments(cls).items()
        for value in (0, 1, 10**9)
        if is_number(hint) and not (value == 10**9 and name in SIZES)
        if (found := outcome(cls, name, value, given)) not in ("accepted", "refused")
    ]
    assert wrong == []


def test_what_a_class_accepts_is_seen() -> None:
    class Careless:
        def __init__(self, share: float, count: int | None = None, range: tuple[float, float] = (0, 1)) -> None:
            if count == 1.5:
                raise SettingsError("wrong")

    given = {"share": 0.5}
    values = [(name, value) for name, (hint, _) in arguments(Careless).items() for value in wrong_values(hint)]
    assert {name for name, _ in values} == {"share", "count", "range"} and len(values) > 20
    assert outcome(Careless, "count", 1.5, given) == "refused without the name: wrong"
    assert outcome(Careless, "count", -1, given) == "accepted"
    assert outcome(Careless, "counts", -1, given).startswith("TypeError")
