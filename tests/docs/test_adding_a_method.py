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

from tailmatch.callbacks import LogitAdjustment
from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.checkpoints.description import class_path
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.networks import load_pretrained
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.contract import (
    METHODS,
    Kill,
    Killed,
    Method,
    assert_same_training,
    at_epoch_ends,
    cases,
    category_network,
    last,
    plain_network,
    prepare,
    run,
    saved,
)
from tests.lightning_modules.pixel_network import PixelNetwork, image
from tests.permuted_classes import assert_follows_classes

PAGE = Path(__file__).parent.parent.parent / "docs" / "adding-a-method.md"


@pytest.fixture
def my_method(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The method's module, with its line in `METHODS`."""
    code, more, line = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = ModuleType("my_method")
    monkeypatch.setitem(sys.modules, "my_method", module)
    exec(compile(code + more, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(METHODS, module.BalancedFixMatch, Method({"threshold": 0.2}))
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


@pytest.mark.parametrize("network", [plain_network, category_network])
def test_a_second_head_is_trained_averaged_saved_and_left_out_of_what_leaves(
    my_method: Any, network: Any, tmp_path: Path
) -> None:
    method = my_method.BalancedFixMatch
    folder = tmp_path / "whole"
    trainer = run(method, tmp_path, at_epoch_ends(folder), network=network)
    state, model = saved(folder), trainer.lightning_module
    first = prepare(method, tmp_path, network=network)[1].state_dict()
    for name in ("standard.weight", "standard.bias"):
        assert not torch.equal(state["state_dict"][name], state["trained_weights"][name])  # averaged
        assert not torch.equal(state["state_dict"][name], first[name])  # trained
    decayed, plain = trainer.optimizers[0].param_groups
    assert any(p is model.standard.weight for p in decayed["params"])
    assert any(p is model.standard.bias for p in plain["params"]) and plain["weight_decay"] == 0
    with pytest.raises(Killed):
        run(method, tmp_path, last(tmp_path / "killed", every_n_train_steps=6), Kill(7), network=network)
    ckpt = tmp_path / "killed" / "last.ckpt"
    run(method, tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=ckpt, network=network)
    assert_same_training(state, saved(tmp_path / "resumed"))

    pixels = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    model.eval()
    with torch.no_grad():
        tagged = model.network.with_categories(to_float(pixels), None)
        features, logits = model.network.features_and_logits(tagged)
        assert torch.equal(logits, model.network.head(features)) and torch.equal(logits, model(tagged))
    torch.testing.assert_close(model.predict(pixels).probs, logits.softmax(dim=1))
    source = read_checkpoint(str(folder / "last.ckpt"))  # of which an export or another method makes its network
    assert {*source.backbone, *(f"head.{name}" for name in source.head)} == set(model.network.state_dict())
    plain_fixmatch = prepare(FixMatch, tmp_path, network=network)[1]
    plain_fixmatch.network.take_vocabulary(state.get("categories"))
    load_pretrained(plain_fixmatch.network, str(folder / "last.ckpt"))
    assert "standard.weight" not in plain_fixmatch.state_dict()


def test_the_heads_share_a_pass_and_have_their_own_losses(my_method: Any) -> None:
    method = my_method.BalancedFixMatch(3, network=PixelNetwork, tau=2.0)
    method.class_counts.copy_(torch.tensor([70, 20, 10]))
    method.standard = torch.nn.Identity()  # the same logits
    passes: list[int] = []
    features = method.network.features
    method.network.features = lambda images: passes.append(len(images)) or features(images)
    logged: dict[str, Any] = {}
    method.track = logged.update
    labeled = {"weak": image(2, 1.5, 1), "target": torch.tensor([1])}
    unlabeled = {"weak": image(0, 5, 0), "strong": [image(0, 1, 0)], "index": torch.tensor([0])}
    loss = method.training_step({"labeled": labeled, "unlabeled": unlabeled}, 0)
    assert passes == [1, 2]
    assert logged["loss_labeled"].item() == pytest.approx(1.1803, abs=1e-4)
    assert logged["loss_balanced"].item() == pytest.approx(3.0610, abs=1e-4)
    right = -math.log(math.e / (math.e + 2))
    assert logged["loss_unlabeled"].item() == pytest.approx(right, rel=1e-5)
    assert loss.item() == pytest.approx(1.1803 + 3.0610 + right, abs=2e-4)
    with pytest.raises(ValueError, match="those of this BalancedFixMatch are trained to be without it"):
        LogitAdjustment().shift(method)


@pytest.mark.parametrize("name", ["MyMethod", "BalancedFixMatch"])
def test_they_go_by_the_frequency_of_classes(my_method: Any, name: str, tmp_path: Path) -> None:
    assert_follows_classes(getattr(my_method, name), tmp_path)
