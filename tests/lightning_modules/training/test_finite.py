"""Test that numbers that are NaN or infinite are found, explained, never saved and never reported."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

import tailmatch
from tailmatch.callbacks import DARP
from tailmatch.callbacks.checkpoints import BestCheckpoint
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import FixMatch, Supervised
from tailmatch.lightning_modules.checkpoints.weights import load_weights
from tailmatch.lightning_modules.inference.export import export
from tailmatch.lightning_modules.networks import CifarResNet, Network
from tailmatch.lightning_modules.training.finite import (
    NotFiniteError,
    infinite_by_design,
    not_finite,
    tensors_in,
)
from tests.contract import REMEDIES, at_epoch_ends, prepare, run, saved

INF = math.inf


@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_one_number_of_any_type_is_found(bad: float) -> None:
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    tensors = {str(dtype): torch.ones(3, 2, dtype=dtype) for dtype in types}
    tensors["complex"] = torch.ones(4, dtype=torch.complex64).conj()
    tensors["sparse"] = torch.eye(3).to_sparse()
    tensors["rows"] = torch.eye(3).to_sparse_csr()
    tensors["scalar"] = torch.ones(())
    assert not_finite(tensors) == []
    for name in tensors:
        changed = torch.ones(3, 2, dtype=torch.float32)
        changed[1, 1] = bad
        if name in ("complex", "scalar"):
            spoiled = torch.complex(torch.ones(()), torch.tensor(bad))[None] if name == "complex" else changed[1, 1]
        elif name in ("sparse", "rows"):
            spoiled = changed.to_sparse() if name == "sparse" else changed.to_sparse_csr()
        else:
            spoiled = changed.to(tensors[name].dtype)
        assert not_finite({**tensors, name: spoiled}) == [name]


def test_nothing_else_is_found() -> None:
    tensors = {
        "large": torch.full((100,), 3e38),  # whose norm overflows
        "half": torch.full((100,), 6e4, dtype=torch.float16),
        "eighth": torch.ones(3).to(torch.float8_e4m3fn),
        "integers": torch.tensor([2**62]),
        "flags": torch.tensor([True]),
        "empty": torch.empty(0, 3),
        "nowhere": torch.empty(2, device="meta"),
    }
    assert not_finite(tensors) == [] == not_finite({})
    assert not_finite({**tensors, "bad": torch.tensor([3e38, INF])}) == ["bad"]


def test_tensors_are_named_by_their_path() -> None:
    state = [{"state": {3: {"step": torch.ones(()), "lr": 0.1}}}, (torch.zeros(1),)]
    assert list(tensors_in(state, "optimizer")) == ["optimizer.0.state.3.step", "optimizer.1.0"]


class Masked(nn.Module):
    """Has a mask of minus infinity, as attention does, and statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((2, 2), -INF).triu(1))
        self.norm = nn.BatchNorm1d(2)


def test_a_mask_may_be_infinite_and_weights_and_statistics_may_not() -> None:
    module = Masked()
    assert infinite_by_design(module) == {"mask"}
    load_weights(module, Masked().state_dict(), "a file")
    for name in ("norm.weight", "norm.running_var", "norm.running_mean"):
        state = module.state_dict()
        with pytest.raises(NotFiniteError, match=f"'a file' has NaN or infinite numbers in {name}: its training"):
            load_weights(Masked(), {**state, name: torch.tensor([1.0, INF])}, "a file")
    assert module.norm.running_var is not None
    module.norm.running_var.fill_(INF)
    assert infinite_by_design(module) == {"mask"}


# A training


Spoil = Callable[[Trainer, Any], None]


def first(tensors: Any) -> Tensor:
    """The first tensor with a number in it."""
    return next(tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel())


def spoil_statistics(trainer: Trainer, model: Any) -> None:
    model.network.get_buffer("backbone.1.running_var").fill_(INF)


def spoil_average(trainer: Trainer, model: Any) -> None:
    first(model._averaging._average.values()).view(-1)[0] = math.nan


def spoil_optimizer(trainer: Trainer, model: Any) -> None:
    first(state["momentum_buffer"] for state in trainer.optimizers[0].state.values()).view(-1)[0] = INF


def spoil_remedy(trainer: Trainer, model: Any) -> None:
    next(each for each in trainer.callbacks if isinstance(each, DARP))._rows.predictions[0] = math.nan  # type: ignore[attr-defined]


SPOILED: dict[str, Spoil] = {
    r"trained\.network\.backbone\.1\.running_var": spoil_statistics,
    r"network\.\S+": spoil_average,
    r"optimizer\.0\.state\.0\.momentum_buffer": spoil_optimizer,
    r"DARP\.predictions": spoil_remedy,
}


class Spoiler(Callback):
    """Spoils a number just before the checkpoint of the second epoch is written."""

    def __init__(self, spoil: Spoil) -> None:
        self.spoil = spoil

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.spoil(trainer, pl_module)


def small_network(num_classes: int) -> CifarResNet:
    """A network with BatchNorm."""
    return CifarResNet(num_classes, depth=8)


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_not_finite_is_never_saved(name: str, tmp_path: Path) -> None:
    remedy = REMEDIES["DARP"].make()
    with pytest.raises(NotFiniteError, match=name) as caught:
        run(FixMatch, tmp_path, remedy, Spoiler(SPOILED[name]), at_epoch_ends(tmp_path), limit_val_batches=0)
    message = str(caught.value)
    assert "became NaN or infinite before step 9: lower the learning rate (it is 0.03)" in message
    assert f"the last good checkpoint is {tmp_path / 'last.ckpt'}. To continue from it: trainer.fit(" in message
    assert saved(tmp_path)["global_step"] == 4
    assert not list(tmp_path.glob("*.partial"))


class Diverging(Supervised):
    """Its validation gives NaN in the second epoch, and its weights stay finite."""

    def forward(self, images: Any) -> Tensor:
        logits = super().forward(images)
        return logits * math.nan if self.trainer.current_epoch == 1 else logits


def test_a_validation_that_is_not_finite_ends_the_fit_before_its_weights_are_saved(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, "best", monitor="val/top1", mode="max", enable_version_counter=False)
    with pytest.raises(NotFiniteError, match="predictions are NaN or infinite, and the weights are finite: numbers"):
        run(Diverging, tmp_path, best, at_epoch_ends(tmp_path))
    for name in ("best", "last"):
        assert torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["global_step"] == 4


class Unknown(Callback):
    """Logs a score that is NaN in the first epoch."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("score", [math.nan, -5.0, -7.0][trainer.current_epoch])


def test_a_score_that_is_nan_is_not_the_best(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, "best", monitor="score", mode="max", enable_version_counter=False)
    with pytest.warns(UserWarning, match="score is nan at step 4: it is not the best"):
        run(Supervised, tmp_path, Unknown(), best)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 8
    assert best.best_model_score == -5


# An evaluation


class Overflowing(Network):
    """Has finite weights, and logits that are not."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, feature_dim=3, channels_last=False)

    def _features(self, normalized: Tensor) -> Tensor:
        return normalized.mean(dim=(2, 3)).exp() * 1e38 * 1e38


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_predictions_that_are_not_finite_are_not_reported(stage: str, tmp_path: Path) -> None:
    trainer, model, data = prepare(Supervised, tmp_path, network=Overflowing)
    with pytest.raises(NotFiniteError, match="predictions are NaN or infinite, and the weights are finite"):
        getattr(trainer, stage)(model, data)
    assert not (tmp_path / "test_metrics.json").exists()


@pytest.fixture
def diverged(tmp_path: Path) -> Path:
    """A checkpoint of a version that saved whatever there was."""
    run(Supervised, tmp_path, at_epoch_ends(tmp_path), network=small_network, max_steps=1)
    content = saved(tmp_path)
    content["state_dict"]["network.backbone.1.running_var"].fill_(INF)
    torch.save(content, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_weights_of_a_file_that_are_not_finite_are_refused(diverged: Path, tmp_path: Path) -> None:
    message = r"last.ckpt' has NaN or infinite numbers in network\.backbone\.1\.running_var: its training had diverged"
    for stage in ("validate", "test", "predict", "fit"):
        trainer, model, data = prepare(Supervised, tmp_path, network=small_network)
        with pytest.raises(NotFiniteError, match=message):
            getattr(trainer, stage)(model, data, ckpt_path=diverged)
    with pytest.raises(NotFiniteError, match=message):
        tailmatch.load(diverged, network=small_network)


def test_a_method_in_memory_whose_weights_are_not_finite_is_neither_tested_nor_exported(tmp_path: Path) -> None:
    trainer, model, data = prepare(Supervised, tmp_path, network=small_network)
    model.network.get_buffer("backbone.1.running_var").fill_(math.nan)
    with pytest.raises(NotFiniteError, match=r"this Supervised are NaN .*: network\.backbone\.1\.running_var"):
        trainer.test(model, data)
    with pytest.raises(NotFiniteError, match=r"weights of this CifarResNet are NaN"):
        export(model, tmp_path / "out.pt2", (8, 8))
    assert issubclass(NotFiniteError, SettingsError)
