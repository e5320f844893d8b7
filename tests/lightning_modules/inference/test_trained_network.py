"""The network of a checkpoint: the same function, built from its configuration, whatever the method's head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.heads import LWS, NCM
from tailmatch.lightning_modules.inference.trained_network import trained_network
from tailmatch.lightning_modules.networks import CifarResNet, EfficientNet, TorchvisionNetwork
from tests.trained_files import NAMES, shaken, trained_file

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def rebuilt(path: str) -> Any:
    return trained_network(read_checkpoint(path), path)


def test_it_is_the_same_function_frozen_and_in_evaluation_mode(tmp_path: Path) -> None:
    network = shaken(CifarResNet(3, depth=8))
    optimizer = {"class_path": "a_package_that_is_not_here.Yogi", "init_args": {}}
    path = trained_file(
        tmp_path / "a.ckpt", network, {"depth": 8}, optimizer=optimizer, pretrained="/gone.ckpt", ema_decay=0.9
    )
    found = rebuilt(path)
    assert torch.equal(found(IMAGES), network(IMAGES))
    assert not found.training and not any(p.requires_grad for p in found.parameters())


@pytest.mark.parametrize("head", [LWS(), NCM()], ids=lambda head: type(head).__name__)
def test_the_head_is_that_of_its_method(head: LWS | NCM, tmp_path: Path) -> None:
    network = shaken(CifarResNet(3, depth=8))
    network.head = head.build(network)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.normal_()
    method = "ClassifierRetraining" if isinstance(head, LWS) else "PostHocClassifier"
    path = trained_file(
        tmp_path / "a.ckpt",
        network,
        {"depth": 8},
        method=f"lightning_modules.{method}",
        checkpoint="/gone.ckpt",
        head={"class_path": f"tailmatch.lightning_modules.heads.{type(head).__name__}"},
    )
    assert torch.equal(rebuilt(path)(IMAGES), network(IMAGES))


def test_published_weights_are_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, **kwargs: object) -> None:
        raise AssertionError(url)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    made: list[tuple[nn.Module, dict[str, Any]]] = [
        (EfficientNet(3), {"pretrained": True}),
        (TorchvisionNetwork(3, "resnet18"), {"name": "resnet18", "weights": "DEFAULT"}),
    ]
    for network, arguments in made:
        path = trained_file(tmp_path / "a.ckpt", shaken(network), arguments)
        assert torch.equal(rebuilt(path)(IMAGES), network(IMAGES))


def test_weights_that_change_the_architecture_are_kept() -> None:
    arguments = {"name": "googlenet", "weights": "DEFAULT"}  # transform_input, which no tensor of a checkpoint holds
    rebuilt = {"name": "googlenet", "weights": None, "transform_input": True}
    assert TorchvisionNetwork.arguments_to_rebuild(arguments) == rebuilt
    assert TorchvisionNetwork.arguments_to_rebuild(rebuilt) == rebuilt  # a rebuilt one is saved again
    assert TorchvisionNetwork(3, **rebuilt).backbone.transform_input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "tailmatch.lightning_modules.RotationPretraining"}, "does not classify by its network alone"),
        ({"method": "tailmatch.lightning_modules.FixMatchh"}, "cannot be built"),
        ({"method": "subprocess.Popen", "args": "true"}, "cannot be built"),
        ({"network": "no_such_module.Network"}, "no_such_module.Network is no public class"),
        ({"network": "subprocess.Popen"}, "cannot be built"),
        ({"arguments": {"depth": 14}}, "do not fit the network"),
        ({"mixup_typo": 1}, "cannot be built"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = change.pop("arguments", {"depth": 8})
    other = change.pop("network", None)
    path = trained_file(tmp_path / "a.ckpt", CifarResNet(3, depth=8), arguments, **change)
    if other is not None:
        content = torch.load(path, weights_only=True)
        content["config"] = content["config"].replace(
            "tailmatch.lightning_modules.networks.cifar_resnet.CifarResNet", other
        )
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        rebuilt(path)


def test_a_run_without_the_command_line_does_not_say_its_network(tmp_path: Path) -> None:
    state = {f"network.{name}": tensor for name, tensor in CifarResNet(3, depth=8).state_dict().items()}
    torch.save({"state_dict": state, "class_names": NAMES}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="does not say which network it was"):
        rebuilt(str(tmp_path / "a.ckpt"))
