"""Test the public names of this package, and that it imports nothing that is not used."""

import ast
import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning_utilities.core.rank_zero import rank_zero_only

import tailmatch
from tailmatch.datamodules.process_number import number_this_process
from tests.forks import exit_code, fork

ROOT = Path(__file__).parent.parent
PACKAGES = ("callbacks", "datamodules", "lightning_modules", "lightning_modules.networks", "lightning_modules.training")
"""Those that import their public names when they are first used."""

HEAVY = ("pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision", "matplotlib")


def loaded_after(code: str, among: tuple[str, ...]) -> list[str]:
    """Run code in a new process, and list which of some modules it has imported."""
    end = f"\nimport json, sys\nprint(json.dumps([name for name in {among} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def homes(package: str) -> dict[str, str]:
    found: dict[str, str] = importlib.import_module(f"tailmatch.{package}")._HOMES
    return found


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded_after("import tailmatch", ("torch", "numpy", "pytorch_lightning")) == []


def test_what_a_worker_process_uses_imports_no_lightning() -> None:
    code = """
import tailmatch.callbacks.remedies.darp.label_files
import tailmatch.callbacks.remedies.darp.prices
import tailmatch.callbacks.remedies.darp.solver
import tailmatch.datamodules.files.decoding
import tailmatch.datamodules.files.image_cache
import tailmatch.datamodules.files.pixels
import tailmatch.datamodules.pseudo_labels.files
import tailmatch.datamodules.pseudo_labels.parts
import tailmatch.lightning_modules.checkpoints.weights
import tailmatch.lightning_modules.inference.arrow_labels
import tailmatch.spark.refine
import tailmatch.spark.select
import tailmatch.spark.worker
import tailmatch.lightning_modules.training.distributed
from tailmatch.lightning_modules.networks import *

BottleneckNetwork(3), CifarResNet(3), EfficientNet(3), WideResNet(3)  # TorchvisionNetwork needs torchvision
from lightning_utilities.core.rank_zero import rank_zero_warn
rank_zero_warn("it is not an error")
"""
    assert loaded_after(code, (*HEAVY, "jsonargparse")) == []


def test_a_command_imports_what_it_needs() -> None:
    code = """
from tailmatch.cli import main
for words in (
    "refine --labels", "refine --help", "select", "label", "label --help", "export", "export --help",
    "fit --config=no.yaml", "compare", "compare --help", "compare no-run",
    "refine --labels no.npz --output out.npz --target no.json", "select --labels no.npz --output out.npz --share 0.5",
):
    try:
        main(words.split())
    except SystemExit as end:
        print(words, end)
    else:
        raise AssertionError(words)
"""
    assert loaded_after(code, HEAVY) == []


def test_a_missing_configuration_is_found_before_torch_is_imported() -> None:
    code = """
from tailmatch.cli import main
try:
    main(["fit", "--config", "demmo.yaml"])
except SystemExit as end:
    assert "--config is demmo.yaml, and there is no such file\\n  Did you mean: demo.yaml?" in str(end)
"""
    assert loaded_after(code, ("torch", *HEAVY)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_written_in_three_places_alike(package: str) -> None:
    folder = ROOT.joinpath(*package.split("."))
    module, listed = importlib.import_module(f"tailmatch.{package}"), homes(package)
    block = next(
        node
        for node in ast.parse((folder / "__init__.py").read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    typed = {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    packages = {name for name, place in typed.items() if place == module.__name__}
    assert {name: place for name, place in typed.items() if name not in packages} == listed
    assert sorted(module.__all__) == sorted(listed)
    assert {*listed, *packages} <= set(dir(module))
    assert not {path.stem for path in folder.iterdir()} & set(listed), "a module would hide it"
    for name, home in listed.items():
        value = getattr(module, name)
        if isinstance(value, type):
            assert value.__module__ == home and pickle.loads(pickle.dumps(value)) is value
    assert all(getattr(module, name).__name__ == f"{module.__name__}.{name}" for name in packages)
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'DRAP'"):
        module.DRAP  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'DRAP'"):
        exec(f"from {module.__name__} import DRAP")
    everything: dict[str, Any] = {}
    exec(f"from {module.__name__} import *", everything)
    assert set(listed) <= set(everything)


def test_any_public_name_may_be_the_first_one() -> None:
    """The others' imports hid it if one module needed another one to be imported before."""
    assert exit_code(fork(import_each_first)) == 0


def forget_this_package() -> None:
    for module in [module for module in sys.modules if module.startswith("tailmatch.")]:
        del sys.modules[module]


def import_each_first() -> None:
    for package in PACKAGES:
        for home, name in {home: name for name, home in homes(package).items()}.items():
            forget_this_package()
            getattr(importlib.import_module(f"tailmatch.{package}"), name)
            quiet = "tailmatch.lightning_modules" in sys.modules  # it drops Lightning's warnings of what is meant here
            assert quiet or package == "datamodules", home


def test_a_short_name_is_found_before_anything_is_imported() -> None:
    assert exit_code(fork(find_by_short_names)) == 0


def find_by_short_names() -> None:
    forget_this_package()
    trust: Any = importlib.import_module("tailmatch.lightning_modules.inference.trust")
    networks: Any = importlib.import_module("tailmatch.lightning_modules.networks")
    found = trust.resolve_class_path_by_name(networks.Network, "CifarResNet")
    assert found == "tailmatch.lightning_modules.networks.CifarResNet"


NUMBERED = [("RANK", "LOCAL_RANK", "SLURM_PROCID"), ("LOCAL_RANK", "SLURM_PROCID"), ("SLURM_PROCID",)]


@pytest.mark.parametrize("names", [*NUMBERED, ("JSM_NAMESPACE_RANK",)])
def test_a_process_has_the_number_that_lightning_reads(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_fabric.utilities.rank_zero import _get_rank

    for number, name in enumerate(("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"), 2):
        monkeypatch.setenv(name, str(number)) if name in names else monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rank_zero_only, "rank", None)
    number_this_process()
    assert rank_zero_only.rank == _get_rank() and _get_rank() is not None
    monkeypatch.setattr(rank_zero_only, "rank", 7)
    number_this_process()
    assert rank_zero_only.rank == 7


def test_without_these_variables_it_is_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delattr(rank_zero_only, "rank")
    number_this_process()
    assert rank_zero_only.rank == 0


def test_it_has_what_a_notebook_asks_for() -> None:
    from tailmatch import SettingsError, load
    from tailmatch.lightning_modules.inference import trained_network

    assert load is trained_network.load and issubclass(SettingsError, ValueError)
    assert tailmatch.callbacks.DARP and tailmatch.datamodules.Digits
    assert tailmatch.lightning_modules.networks.WideResNet and tailmatch.lightning_modules.losses.Focal
    assert {"load", "SettingsError", "datamodules"} <= set(dir(tailmatch))
    with pytest.raises(AttributeError, match="no attribute 'FixMatch'"):  # class paths are those of the packages
        tailmatch.FixMatch  # noqa: B018
