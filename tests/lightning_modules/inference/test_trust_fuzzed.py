"""Configurations of checkpoints at random: whatever is changed in one, nothing is called but what it may name."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailmatch import load
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import views
from tailmatch.lightning_modules.inference import trust
from tailmatch.lightning_modules.inference.class_paths import public_class, public_names, public_path
from tailmatch.lightning_modules.networks import CifarResNet
from tests.stranger import MODULE, Watch, with_settings
from tests.stranger import argument as set_argument
from tests.trained_files import trained_file

OURS = [public_path(f"{package}.{name}") for package in ("lightning_modules", "callbacks") for name in public_names()]
NAMES = [
    *(path for path in OURS if public_class(path) is not None),
    "torch.optim.SGD", "torch.optim.lr_scheduler.StepLR", "torch.optim.lr_scheduler.canary", "torch.hub.load",
    "torch.load", "torch.nn.Identity", "torch.nn.Module", "torch.fx.graph_module.reduce_graph_module",
    "tailmatch.lightning_modules.views.canary", "lightning_modules.views.canary", "views.canary", "canary",
    "tailmatch.lightning_modules.views.base.canary", "tailmatch.lightning_modules.networks.load_pretrained",
    "os.system", "subprocess.Popen", "builtins.exec", "builtins.open", "functools.partial", "typing.Union",
    "types.UnionType", "importlib.import_module", "pytorch_lightning.Trainer", "jsonargparse.ArgumentParser",
    f"{MODULE}.make", f"{MODULE}.Part", MODULE, "this.s", "antigravity.webbrowser", "yaml.unsafe_load",
]  # fmt: skip
"""Classes of ours, functions and classes beside them, and what runs code."""


def mutated(name: str) -> st.SearchStrategy[str]:
    """A name, as it is or with one or two letters changed."""
    slip = st.tuples(st.integers(0, len(name)), st.sampled_from(["", ".", "_", "x", " ", "\n", "..", "__class__."]))
    return st.lists(slip, max_size=2).map(lambda slips: _slipped(name, slips))


def _slipped(name: str, slips: list[tuple[int, str]]) -> str:
    for place, text in slips:
        name = name[:place] + text + name[place + (text == "") :]
    return name


ARGUMENTS = ("network", "view", "loss", "class_weights", "optimizer", "lr_scheduler", "mixup", "other")
names = st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES).flatmap(mutated))
keys = st.sampled_from(
    ["class_path", "init_args", "dict_kwargs", "network", "view", "weak", "func", "args", "body", "pretrained", "a.b"]
)
plain = st.one_of(st.none(), st.booleans(), st.integers(-2, 20), st.just(float("nan")), names)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values around values, in the forms in which jsonargparse takes a class."""
    arguments = st.dictionaries(keys, inner, max_size=3)
    classes = st.builds(lambda path, given: {"class_path": path, "init_args": given}, names, arguments)
    loose = st.builds(lambda path, given: {"class_path": path, "dict_kwargs": given}, names, arguments)
    hidden = classes.map(lambda value: yaml.safe_dump(value, default_flow_style=True, width=10_000))
    return st.one_of(classes, loose, hidden, arguments, st.lists(inner, max_size=2))


values = st.recursive(plain, nested, max_leaves=6)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network."""
    folder = tmp_path_factory.mktemp("good")
    return Path(trained_file(folder / "good.ckpt", CifarResNet(3, depth=8), {"depth": 8}))


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    (tmp_path / "outside").mkdir()
    return Watch(tmp_path / "outside")


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record the names that jsonargparse imports."""
    imported: list[str] = []
    original = trust.UPSTREAM["import_object"]

    def record(name: Any, *args: Any, **kwargs: Any) -> Any:
        imported.append(str(name))
        return original(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setitem(trust.UPSTREAM, "import_object", record)
        yield imported


def may_be_imported(name: str) -> bool:
    """The rule, written anew: classes that the package exports, and optimizers and schedules of torch."""
    module, _, last = name.rpartition(".")
    if name in ("typing.Union", "types.UnionType") or not module:  # what is no dotted name, jsonargparse refuses
        return True
    found = getattr(sys.modules.get(module), last, None)
    if not isinstance(found, type):
        return False
    if module in ("torch.optim", "torch.optim.lr_scheduler"):
        return issubclass(found, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler) or last == (
            "ReduceLROnPlateau"
        )
    return module.startswith("tailmatch.") and last in getattr(sys.modules[module], "__all__", ())


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(argument=st.sampled_from(ARGUMENTS), value=values)
def test_nothing_is_called_that_may_not_be_named(
    argument: str, value: Any, good: Path, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (views, views.base, torch.optim.lr_scheduler):
        monkeypatch.setattr(module, "canary", lambda *args, **kwargs: watch.called.touch(), raising=False)
    file = with_settings(tmp_path / "bad.ckpt", good, set_argument(argument, value))
    with recorded(monkeypatch) as imported, watch.nothing_happens():
        try:
            load(file)
        except SettingsError as error:
            assert "bad.ckpt" in str(error)
    assert [name for name in imported if not may_be_imported(name)] == []
