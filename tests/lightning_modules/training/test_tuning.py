"""Light training: what stays to the bit, what is trained, at which rates, and what is refused."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import seed_everything
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import (
    ClassifierRetraining,
    FixMatch,
    MixMatch,
    MoCoPretraining,
    SelfTraining,
    Supervised,
)
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.inference.export import export
from tailmatch.lightning_modules.inference.trained_network import load, trained_network
from tailmatch.lightning_modules.inference.trust import trust_checkpoints
from tailmatch.lightning_modules.networks import CategoryNetwork, CifarResNet, Network, load_pretrained
from tailmatch.lightning_modules.networks.adapters import LoRALinear
from tailmatch.lightning_modules.training import FixMatchSGD, Tuning
from tests.contract import Kill, Killed, assert_same_training, at_epoch_ends, last, plain_network, prepare, run, saved

MoCo = partial(MoCoPretraining, queue_size=20, norm_splits=2)


class Mixer(Network):
    """A small network with linear layers in residual blocks, one with BatchNorm and dropout, and a class token."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, 12)
        self.token = nn.Parameter(torch.randn(12))
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.BatchNorm1d(24), nn.Dropout(0.2), nn.Linear(24, 12))
            if block == 1
            else MLP()
            for block in range(3)
        )
        self.norm = nn.LayerNorm(12)
        self._finish()

    def _features(self, normalized: Tensor) -> Tensor:
        tokens = self.patch(normalized).mean(dim=(2, 3)) + self.token
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return self.norm(tokens)


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(12, 24), nn.BatchNorm1d(24), nn.Linear(24, 12)

    def forward(self, x: Tensor) -> Tensor:
        weighted = nn.functional.linear(x, self.up.weight, self.up.bias)  # as attention that reads its layers' weights
        return self.down(self.norm(weighted).relu())


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


ADAPTERS = [f"blocks.{layer}.lora_" for layer in ("0.up", "0.down", "1.0", "1.4", "2.up", "2.down")]

CASES: dict[str, tuple[Any, Any, dict[str, Any], list[str], bool]] = {
    "the head": (FixMatch, plain_network, {"blocks": 0}, [], False),
    "the last block": (MixMatch, plain_network, {"blocks": 1, "backbone_lr": 0.5}, ["backbone.5."], True),
    "a student": (SelfTraining, plain_network, {"parts": ["stem"]}, ["backbone.0.", "backbone.1."], False),
    "a key network": (MoCo, plain_network, {"blocks": 1}, ["backbone.5."], False),
    "adapters": (FixMatch, Mixer, {"lora_rank": 2, "layer_decay": 0.5}, ADAPTERS, True),
}
"""Method, network, arguments of the tuning, the beginnings of what it trains beside the head, and whether to resume."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:a part of the network is frozen, and it has random weights")
def test_what_is_frozen_keeps_its_bits_and_a_resumed_run_those_of_a_whole_one(case: str, tmp_path: Path) -> None:
    method, network, arguments, trained, resumes = CASES[case]
    tuned = partial(method, tune=Tuning(**arguments))
    _, model, _ = prepare(tuned, tmp_path, network=network)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    trainer = run(tuned, tmp_path / "whole", at_epoch_ends(tmp_path / "whole"), network=network)
    whole = saved(tmp_path / "whole")
    found = changed(before, trainer.lightning_module.network.state_dict())
    constant = ("lora_scale", "num_batches_tracked")  # a counter counts or not, as its kind of BatchNorm does
    expected = {name for name in before if name.startswith(("head.", *trained)) and not name.endswith(constant)}
    assert {name for name in found if not name.endswith(constant)} - {"mean", "std"} == expected
    averaged = {name for name in whole["trained_weights"] if name.startswith("network.")}
    assert averaged == {f"network.{name}" for name in expected}
    if not resumes:
        return
    with pytest.raises(Killed):
        run(tuned, tmp_path, last(tmp_path, every_n_train_steps=7), Kill(10), network=network)
    run(tuned, tmp_path / "again", at_epoch_ends(tmp_path / "again"), network=network, ckpt=tmp_path / "last.ckpt")
    assert_same_training(whole, saved(tmp_path / "again"))


def test_frozen_modules_stay_in_evaluation_mode_and_those_with_adapters_but_for_batch_norm() -> None:
    model = Supervised(4, network=CifarResNet, tune=Tuning(1))
    backbone: Any = model.train().network.backbone
    assert [part.training for part in backbone] == [False] * (len(backbone) - 1) + [True]
    assert not any(part.training for part in backbone[0].modules()) and model.network.head.training
    network: Any = Supervised(4, network=Mixer, tune=Tuning(lora_rank=1)).train().network
    assert network.blocks[1][3].training and not network.blocks[1][2].training and not network.patch.training


def test_an_adapted_network_begins_as_it_was_and_is_merged_wherever_it_is_used(tmp_path: Path) -> None:
    images = torch.rand(3, 3, 8, 8)
    seed_everything(1, verbose=False)
    plain = Mixer(10).eval()
    model = Supervised(10, network=plain, tune=Tuning(lora_rank=2, lora_alpha=4))
    adapted = model.eval().network
    assert sum(isinstance(part, LoRALinear) for part in adapted.modules()) == 6
    with torch.no_grad():
        expected = adapted(images)
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_()
        shaken = adapted(images)
    assert not torch.allclose(expected, shaken, atol=0.1)
    trainer, fitted, data = prepare(
        partial(Supervised, tune=Tuning(lora_rank=2, lora_alpha=4)), tmp_path, network=Mixer
    )
    fitted.network.load_state_dict(adapted.state_dict())
    fitted.network.begins_trained = True
    trainer.limit_train_batches, trainer.fit_loop.max_epochs = 1, 1
    trainer.fit(fitted, data)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    file = str(tmp_path / "run.ckpt")
    with torch.no_grad(), trust_checkpoints():
        logits = fitted.eval().network(images)
        merged = trained_network(read_checkpoint(file), file)
        assert not any(name.endswith("lora_a") for name in merged.state_dict())
        for network in (merged, load(file).eval().network):
            torch.testing.assert_close(network(images), logits)
        export(fitted, tmp_path / "a.pt2")
        pixels = (images * 255).to(torch.uint8)
        [_, exported] = torch.export.load(tmp_path / "a.pt2").module()(pixels)
        torch.testing.assert_close(exported, fitted.network(pixels / 255))
    again = Supervised(10, network=Mixer, pretrained=file, tune=Tuning(lora_rank=3))
    load_pretrained(again.network, file)
    again.network.load_state_dict({name: fitted.network.state_dict()[name] for name in ("mean", "std")}, strict=False)
    torch.testing.assert_close(again.eval().network.features(images), fitted.network.features(images))
    ClassifierRetraining(10, file, network=Mixer)._load(read_checkpoint(file), file)


def test_each_part_has_its_learning_rate() -> None:
    model = Supervised(4, network=partial(CifarResNet, depth=8), tune=Tuning(2, backbone_lr=0.1, layer_decay=0.5))
    model._trainer = None
    model.lr_scheduler = partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    model.optimizer = partial(FixMatchSGD, lr=0.8)
    optimizer = model.configure_optimizers()["optimizer"]
    names = {parameter: name for name, parameter in model.network.named_parameters()}
    rates = {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    parts = {"head", "backbone.4", "backbone.5"}
    assert {part for part in parts for name in rates if name.startswith(f"{part}.")} == parts and len(rates) == 14
    for name, rate in rates.items():
        assert rate == pytest.approx(0.8 if name.startswith("head") else 0.08 if "backbone.5" in name else 0.04)
    assert optimizer.param_groups[0]["lr"] == 0.8  # what is logged
    assert [group["weight_decay"] for group in optimizer.param_groups][:2] == [5e-4, 0.0]


def test_layers_that_begin_random_are_trained_with_the_head() -> None:
    network = CategoryNetwork(4, ["color"], partial(CifarResNet, depth=8))
    Supervised(4, network=network, tune=Tuning(0))
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained and all(name.startswith(("head.", "category_embeddings.")) for name in trained)


def test_a_frozen_network_of_random_weights_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="a part of the network is frozen, and it has random weights"):
        Supervised(4, network=CifarResNet, tune=Tuning(0)).begin_fit()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the tuning changes nothing: give blocks, parts, lora_rank, backbone_lr or layer_decay"),
        ({"blocks": 0, "backbone_lr": 0.1}, "backbone_lr is 0.1 and layer_decay 1.0, .* the whole backbone is frozen"),
        ({"blocks": 1, "parts": ["stem"]}, r"blocks is 1 and parts \['stem'\]: give one of them"),
        ({"parts": "stem"}, "parts is 'stem'; it must be a list of names"),
        ({"blocks": 5}, "blocks is 5, and the network has 4: stem, backbone.3, backbone.4, backbone.5"),
        ({"parts": ["layer4"]}, "parts has 'layer4', and the network's parts are stem, backbone.3, backbone.4"),
        ({"lora_rank": 4}, "lora_rank is 4, and the frozen part of the CifarResNet has no linear layer to adapt"),
        ({"layer_decay": 1.5}, r"layer_decay is 1.5; it must be in \(0, 1\]"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Supervised(4, network=partial(CifarResNet, depth=8), tune=Tuning(**arguments))


def test_a_rank_beyond_a_layer_and_a_frozen_backbone_are_refused() -> None:
    with pytest.raises(SettingsError, match="lora_rank is 20; for layer blocks.0.up it must be at most 12"):
        Supervised(4, network=Mixer, tune=Tuning(lora_rank=20))
    with pytest.raises(SettingsError, match="tune is given, and the whole backbone is frozen"):
        ClassifierRetraining(4, "last.ckpt", tune=Tuning(0))
