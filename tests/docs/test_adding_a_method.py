"""The method of docs/adding-a-method.md, as it stands there."""

import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from tailmatch.lightning_modules.checkpoints.description import class_path
from tests.contract import (
    METHODS,
    Kill,
    Killed,
    Method,
    assert_same_training,
    at_epoch_ends,
    cases,
    last,
    run,
    saved,
)
from tests.lightning_modules.pixel_network import PixelNetwork, image

PAGE = Path(__file__).parent.parent.parent / "docs" / "adding-a-method.md"


@pytest.fixture
def my_method(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The method's module, with its line in `METHODS`."""
    code, line = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = ModuleType("my_method")
    monkeypatch.setitem(sys.modules, "my_method", module)
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    for method, small in eval(f"{{{line}}}", {"MyMethod": module.MyMethod, "Method": Method}).items():
        monkeypatch.setitem(METHODS, method, small)
    return module


def test_the_method_joins_the_contract_and_resumes_exactly(my_method: Any, tmp_path: Path) -> None:
    method = my_method.MyMethod
    assert {remedy for case, remedy in cases("GPU") if case is method} and class_path(method) == "my_method.MyMethod"
    trainer = run(method, tmp_path, at_epoch_ends(tmp_path / "whole"))
    assert trainer.lightning_module.lambda_u == METHODS[method].arguments["lambda_u"]
    with pytest.raises(Killed):
        run(method, tmp_path, last(tmp_path / "killed", every_n_train_steps=6), Kill(7))
    run(method, tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=tmp_path / "killed" / "last.ckpt")
    assert_same_training(saved(tmp_path / "whole"), saved(tmp_path / "resumed"))


def test_the_loss_is_the_equation_of_its_docstring(my_method: Any) -> None:
    method = my_method.MyMethod(3, network=PixelNetwork, lambda_u=2.0)
    logged: dict[str, Any] = {}
    method.track = logged.update
    views = [image(0, 5, 0), image(0, 1, 0)]
    labeled = {"weak": image(1, 0, 0), "target": torch.tensor([0])}
    loss = method.training_step({"labeled": labeled, "unlabeled": {"weak": views, "index": torch.tensor([0])}}, 0)
    right, wrong = -math.log(math.e / (math.e + 2)), -math.log(1 / (math.e + 2))
    share = math.exp(5) / (math.exp(5) + 2)  # of the class of the pseudo-label
    assert logged["loss_labeled"].item() == pytest.approx(right, rel=1e-5)
    assert loss.item() == pytest.approx(right + 2 * share * (share * right + (1 - share) * wrong), rel=1e-5)
    with pytest.raises(ValueError, match="lambda_u is -1; it must be at least 0"):
        my_method.MyMethod(3, lambda_u=-1)


def test_the_yaml_file_names_the_class_and_its_arguments(my_method: Any) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    settings = yaml.safe_load(text)["model"]
    assert settings["class_path"] == "tailmatch.lightning_modules.MyMethod"
    assert my_method.MyMethod(10, network=PixelNetwork, **settings["init_args"]).lambda_u == 2
