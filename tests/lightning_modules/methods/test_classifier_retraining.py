"""Re-training: the backbone keeps every bit, and the checkpoint it comes from is checked."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from tailmatch.lightning_modules import ClassifierRetraining, RotationPretraining
from tailmatch.lightning_modules.heads import CRT, LWS, TrainedHead
from tailmatch.lightning_modules.networks import CifarResNet, WideResNet
from tests.contract import Kill, Killed, assert_same, at_epoch_ends, differs, last, run, saved, source_checkpoint


def retraining(checkpoint: str, **own: Any) -> Callable[..., ClassifierRetraining]:
    """What `run` calls, with arguments of its own."""

    def made(num_classes: int, network: Any, ema_decay: float) -> ClassifierRetraining:
        return ClassifierRetraining(checkpoint=checkpoint, num_classes=num_classes, network=network, **own)

    return made


def fit(method: Callable[..., ClassifierRetraining], folder: Path, *callbacks: Callback, **more: Any) -> Trainer:
    return run(method, folder, *callbacks, **more)  # type: ignore[arg-type]


def backbone_bits(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """All of a network but its head, with a zero and its negative told apart."""
    backbone = {name: t for name, t in state.items() if name.startswith("network.") and "head." not in name}
    return {name: t.view(torch.int32) if t.is_floating_point() else t for name, t in backbone.items()}


def difficult_checkpoint(folder: Path) -> str:
    """Negative zeros, statistics that would move, counters, and channel statistics that are not the data's."""
    file = source_checkpoint(folder)
    content = torch.load(file, weights_only=True)
    for name, tensor in content["state_dict"].items():
        if name.endswith(("bn1.bias", "bn1.running_mean")):
            tensor.fill_(-0.0)
        if name.endswith("num_batches_tracked"):
            tensor.fill_(77)
    content["state_dict"]["network.mean"].fill_(0.25)
    torch.save(content, file)
    return file


class Modes(Callback):
    """Notes which parts of the network are in training mode before each step."""

    def __init__(self) -> None:
        self.training: list[set[str]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        self.training.append({name for name, part in pl_module.network.named_modules() if part.training})


# The backbone


@pytest.mark.parametrize("ema_decay", [None, 0.5])
@pytest.mark.parametrize(("head", "parameters"), [(CRT(), {"weight", "bias"}), (LWS(), {"scale"})], ids=["CRT", "LWS"])
def test_not_one_bit_of_the_backbone_changes(
    head: TrainedHead, parameters: set[str], ema_decay: float | None, tmp_path: Path
) -> None:
    file = difficult_checkpoint(tmp_path)
    source = torch.load(file, weights_only=True)["state_dict"]
    modes = Modes()
    trainer = fit(retraining(file, head=head, ema_decay=ema_decay), tmp_path, modes, at_epoch_ends(tmp_path))
    trainer.test(trainer.lightning_module, trainer.datamodule, verbose=False)  # type: ignore[attr-defined]

    checkpoint = saved(tmp_path)
    assert checkpoint["global_step"] == 12
    assert_same(backbone_bits(dict(trainer.lightning_module.state_dict())), backbone_bits(source), "module")
    assert_same(backbone_bits(checkpoint["state_dict"]), backbone_bits(source), "checkpoint")
    trained = {f"network.head.{name}" for name in parameters}
    assert checkpoint.get("trained_weights", {}).keys() == (trained if ema_decay else set())
    in_optimizer = [id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]]
    named = dict(trainer.lightning_module.named_parameters())
    assert sorted(in_optimizer) == sorted(id(named[name]) for name in trained)
    assert len(modes.training) == 12  # three epochs, with a validation after each
    assert all(names and all(name.startswith("head") for name in names) for names in modes.training)


def test_a_backbone_put_into_training_mode_before_a_fit_is_put_back(tmp_path: Path) -> None:
    def made(**kwargs: Any) -> ClassifierRetraining:
        method = retraining(source_checkpoint(tmp_path))(**kwargs)
        method.network.train()
        return method

    modes = Modes()
    fit(made, tmp_path, modes)
    assert all(names == {"head"} for names in modes.training)


def test_the_heads_are_trained_and_lws_keeps_the_trained_one(tmp_path: Path) -> None:
    file = source_checkpoint(tmp_path)
    source = torch.load(file, weights_only=True)["state_dict"]
    state = fit(retraining(file, head=LWS()), tmp_path).lightning_module.state_dict()
    for name in ("weight", "bias"):
        assert torch.equal(state[f"network.head.head.{name}"], source[f"network.head.{name}"])
    assert (state["network.head.scale"] != 1).all()
    state = fit(retraining(file), tmp_path).lightning_module.state_dict()
    assert (state["network.head.weight"] - source["network.head.weight"]).abs().max() > 0.01


def test_dropout_in_the_head_is_that_of_the_mode() -> None:
    method = ClassifierRetraining(3, "unread.ckpt", network=partial(WideResNet, depth=10, dropout=0.5))
    assert method.network.head.training and not method.network.backbone.training  # type: ignore[union-attr]
    assert not method.eval().network.head.training
    assert method.train().network.head.training and not method.network.training


def test_averaged_weights_of_the_checkpoint_are_taken(tmp_path: Path) -> None:
    run(RotationPretraining, tmp_path, at_epoch_ends(tmp_path))  # averages of decay 0.5, and a head for four turns
    checkpoint = saved(tmp_path)
    averages = backbone_bits(checkpoint["state_dict"])
    assert differs(averages, backbone_bits({**checkpoint["state_dict"], **checkpoint["trained_weights"]}))
    trainer = fit(retraining(str(tmp_path / "last.ckpt")), tmp_path)
    assert_same(backbone_bits(dict(trainer.lightning_module.state_dict())), averages, "averages")


def test_resume_and_test_do_not_need_the_file(tmp_path: Path) -> None:
    file = source_checkpoint(tmp_path)
    fit(retraining(file), tmp_path, at_epoch_ends(tmp_path / "whole"))
    with pytest.raises(Killed):
        fit(retraining(file), tmp_path, last(tmp_path / "killed", every_n_train_steps=3), Kill(5))
    Path(file).unlink()
    killed = tmp_path / "killed" / "last.ckpt"
    trainer = fit(retraining(file), tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=killed)
    assert_same(saved(tmp_path / "whole")["state_dict"], saved(tmp_path / "resumed")["state_dict"], "state_dict")
    [metrics] = trainer.test(ckpt_path=str(tmp_path / "resumed" / "last.ckpt"), datamodule=trainer.datamodule)  # type: ignore[attr-defined]
    assert metrics["test/loss"] > 0


# What is refused


def begin(file: Path | str, **kwargs: Any) -> None:
    kwargs = {"num_classes": 10, "network": partial(CifarResNet, depth=8), **kwargs}
    ClassifierRetraining(checkpoint=str(file), **kwargs).begin_fit()


def test_a_file_that_is_missing_or_no_checkpoint_of_this_package(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.ckpt' does not exist"):
        begin(tmp_path / "none.ckpt")
    for content in ({"state_dict": {"encoder.weight": torch.ones(1)}}, {"conv.weight": torch.ones(1)}, [1]):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"other\.pt' has no network of this package in it; it must be a <run>"):
            begin(tmp_path / "other.pt")


def test_another_network_is_shown_with_its_settings(tmp_path: Path) -> None:
    file = source_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"(?s)is of another network: .* missing: .*does not say which network"):
        begin(file, network=partial(CifarResNet, depth=14))
    content = torch.load(file, weights_only=True)
    network = {"class_path": "tailmatch.lightning_modules.networks.CifarResNet", "init_args": {"depth": 8}}
    content["config"] = yaml.safe_dump({"model": {"class_path": "FixMatch", "init_args": {"network": network}}})
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"missing: .*network: \{class_path: .*CifarResNet, init_args: \{depth: 8\}\}"):
        begin(file, network=partial(CifarResNet, depth=14))


def test_the_head_of_other_classes_is_not_scaled(tmp_path: Path) -> None:
    file = source_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"of the checkpoint's head.*weight \[10, 64\] instead of \[3, 64\]"):
        begin(file, num_classes=3, head=LWS())


def test_other_classes_are_refused(tmp_path: Path) -> None:
    file = source_checkpoint(tmp_path)
    content = torch.load(file, weights_only=True)
    torch.save({**content, "class_names": [*"012345678", "ant"]}, file)
    with pytest.raises(ValueError, match=r"trained on other classes: only there \['ant'\], only here \['9'\]"):
        begin(file)


def test_two_sources_of_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="pretrained is 'a.pt', and the weights are those of checkpoint 'b.ckpt'"):
        begin("b.ckpt", pretrained="a.pt")
