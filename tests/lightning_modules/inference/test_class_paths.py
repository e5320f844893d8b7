"""Paths of classes: those of today, those of former versions, and a user's own."""

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.inference.class_paths import public_names, public_path, with_public_paths
from tailmatch.lightning_modules.inference.trained_network import trained_network
from tailmatch.lightning_modules.inference.trust import class_named
from tailmatch.lightning_modules.networks import CifarResNet
from tests.trained_files import NAMES, trained_file

PACKAGES = ("lightning_modules", "callbacks", "datamodules")
FORMER = {
    "lightning_modules.FixMatch": "lightning_modules.FixMatch",
    "lightning_modules.fixmatch.FixMatch": "lightning_modules.FixMatch",
    "lightning_modules.crt.ClassifierRetraining": "lightning_modules.ClassifierRetraining",  # another file's name today
    "lightning_modules.networks.CifarResNet": "lightning_modules.networks.CifarResNet",
    "lightning_modules.networks.cifar_resnet.CifarResNet": "lightning_modules.networks.CifarResNet",
    "lightning_modules.views.StrongView": "lightning_modules.views.StrongView",
    "lightning_modules.losses.LDAM": "lightning_modules.losses.LDAM",
    "lightning_modules.heads.TauNorm": "lightning_modules.heads.TauNorm",
    "lightning_modules.optimization.FixMatchSGD": "lightning_modules.training.FixMatchSGD",
    "lightning_modules.optimization.CosineDecay": "lightning_modules.training.CosineDecay",
    "lightning_modules.distribution_alignment.DistributionAlignment": "callbacks.DistributionAlignment",
    "callbacks.DARP": "callbacks.DARP",
    "callbacks.darp.DARP": "callbacks.DARP",
    "datamodules.Digits": "datamodules.Digits",
    "datamodules.long_tail.DARPCounts": "datamodules.DARPCounts",
}
"""Paths of former versions, and the public path in `tailmatch`."""


@pytest.mark.parametrize(("former", "today"), FORMER.items())
def test_a_path_of_a_former_version_is_a_class_of_today(former: str, today: str) -> None:
    assert public_path(former) == public_path(f"tailmatch.{today}") == f"tailmatch.{today}"
    assert class_named(former) is getattr(
        importlib.import_module(f"tailmatch.{today.rpartition('.')[0]}"), former.split(".")[-1]
    )
    assert not [name for name in sys.modules if name.split(".")[0] in PACKAGES]  # though this folder is importable


@pytest.mark.parametrize("path", ["torch.optim.SGD", "FixMatch", "callbacks", "mine.callbacks.DARP", "tailmatch.load"])
def test_other_paths_stay(path: str) -> None:
    assert public_path(path) == path


def test_a_module_of_this_package_gives_way_to_the_package_that_exports_it() -> None:
    deep = "tailmatch.lightning_modules.training.schedules.StepDecay"
    assert public_path(deep) == "tailmatch.lightning_modules.training.StepDecay"
    hidden = "tailmatch.lightning_modules.networks.network.DropoutLinear"
    assert public_path(hidden) == hidden
    settings = {
        "model": {"class_path": "callbacks.DARP", "init_args": {"a": [{"class_path": deep}], "b": "callbacks.DARP"}}
    }
    arguments = {"a": [{"class_path": public_path(deep)}], "b": "callbacks.DARP"}
    assert with_public_paths(settings) == {"model": {"class_path": "tailmatch.callbacks.DARP", "init_args": arguments}}


def test_a_name_has_one_public_path() -> None:
    twice = [name for name, count in Counter(public_names()).items() if count > 1]
    assert twice == []


@pytest.fixture
def users_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of the user's with a package `callbacks`, in front of all others."""
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "__init__.py").write_text("class Mine: pass\n")
    (tmp_path / "callbacks" / "logit_adjustments.py").write_text("class LogitAdjustment: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "callbacks"]:
        del sys.modules[name]


@pytest.mark.usefixtures("users_package")
def test_a_users_own_package_of_the_same_name_is_found() -> None:
    for path in ("callbacks.Mine", "callbacks.logit_adjustments.LogitAdjustment"):
        assert public_path(path) == path and class_named(path).__module__ == path.rpartition(".")[0]
    assert class_named("callbacks.logit_adjustment.LogitAdjustment").__module__.startswith("tailmatch.callbacks.")
    assert class_named("callbacks.DARP").__module__.startswith("tailmatch.callbacks.")


@pytest.mark.parametrize("path", ["callbacks.Mine", "tailmatch.callbacks.Mine", "nowhere.Mine", "Mine"])
def test_a_class_that_is_not_there_is_one_message(path: str) -> None:
    with pytest.raises(SettingsError, match=f"class_path is '{path}', and there is no such class"):
        class_named(path)
    assert "callbacks" not in sys.modules


def test_a_checkpoint_of_a_former_version_is_rebuilt(tmp_path: Path) -> None:
    network = CifarResNet(len(NAMES), depth=8)
    file = trained_file(tmp_path / "a.ckpt", network, {"depth": 8})
    content = torch.load(file, weights_only=True)
    former = content["config"].replace("tailmatch.", "")
    assert "class_path: lightning_modules.networks.cifar_resnet.CifarResNet" in former
    torch.save(content | {"config": former}, file)
    rebuilt = trained_network(read_checkpoint(file), file)
    for name, tensor in network.state_dict().items():
        assert torch.equal(rebuilt.state_dict()[name], tensor), name
    assert "lightning_modules" not in sys.modules
