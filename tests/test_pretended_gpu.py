"""Test every method on the pretended GPU of `pretended_gpu.py`."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from tailmatch.callbacks import PredictionWriter
from tailmatch.lightning_modules import FixMatch, ImageClassifier, MoCoPretraining, SelfTraining, Supervised
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.heads import NCM, ComputedHead, TauNorm
from tailmatch.lightning_modules.losses import (
    LDAM,
    BalancedSoftmax,
    ClassificationLoss,
    CrossEntropy,
    DeferredReweighting,
    Focal,
    GeneralizedCrossEntropy,
    LogitAdjusted,
    SymmetricCrossEntropy,
)
from tests.contract import (
    NO_REMEDY,
    Kill,
    Killed,
    Runs,
    assert_same_training,
    at_epoch_ends,
    callbacks_of,
    cases,
    category_network,
    each,
    last,
    plain_network,
    post_hoc,
    run,
    saved,
    source_checkpoint,
)
from tests.pretended_gpu import PretendedGPU

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")

OF_A_STEP = {"on_after_batch_transfer", "training_step", "optimizer_step", "on_train_batch_end"}
EXPECTED = {
    "_solve_all",  # DARP, once in refine_every steps
    "_check_finite",  # training numbers, once in log_every_n_steps steps
    "log_dict",
    "save_checkpoint",
}


class FirstStep(Callback):
    """Forgets the waits of the first step, which takes to the GPU what stays there."""

    def __init__(self, gpu: PretendedGPU) -> None:
        self.gpu = gpu

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """After all other callbacks."""
        if trainer.global_step == 1:
            self.gpu.waits.clear()


def fit(method: Any, folder: Path, *callbacks: Callback, **kwargs: Any) -> tuple[Trainer, PretendedGPU]:
    with PretendedGPU() as gpu:
        trainer = run(method, folder, *callbacks, FirstStep(gpu), accelerator="auto", strategy=gpu.strategy(), **kwargs)
    return trainer, gpu


def of_steps(gpu: PretendedGPU) -> list[str]:
    """Where the host waits in training steps though nobody needs a number."""
    waits = (wait for wait in gpu.waits if OF_A_STEP & set(wait.callers) and not EXPECTED & set(wait.callers))
    return [f"{wait.operation} at {wait.where}" for wait in waits]


@pytest.mark.parametrize(("method", "remedy"), each(cases("GPU")))
def test_a_method_trains_as_on_a_processor_and_no_step_waits(
    method: type[ImageClassifier], remedy: str, runs: Runs, tmp_path: Path
) -> None:
    tagged = remedy == NO_REMEDY and not issubclass(method, Pretraining)
    network = category_network if tagged else plain_network
    _, gpu = fit(method, tmp_path, *callbacks_of(remedy), at_epoch_ends(tmp_path), network=network)
    assert gpu.waits and of_steps(gpu) == []
    assert_same_training(saved(runs.whole(method, remedy, network)[0]), saved(tmp_path), remedy)


@pytest.mark.parametrize(
    ("method", "remedy"), each([(FixMatch, "DARP"), (MoCoPretraining, NO_REMEDY), (SelfTraining, NO_REMEDY)])
)
def test_a_resumed_run_ends_with_the_same_bits(
    method: type[ImageClassifier], remedy: str, runs: Runs, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        fit(method, tmp_path, *callbacks_of(remedy), last(tmp_path / "killed", every_n_train_steps=3), Kill(7))
    checkpoint = tmp_path / "killed" / "last.ckpt"
    fit(method, tmp_path, *callbacks_of(remedy), at_epoch_ends(tmp_path / "resumed"), ckpt=checkpoint)
    assert_same_training(saved(runs.whole(method, remedy)[0]), saved(tmp_path / "resumed"), remedy)


LOSSES = [
    CrossEntropy(label_smoothing=0.1),
    Focal(),
    LDAM(),
    LogitAdjusted(),
    BalancedSoftmax(),
    GeneralizedCrossEntropy(),
    SymmetricCrossEntropy(),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_losses(loss: ClassificationLoss, tmp_path: Path) -> None:
    method = partial(Supervised, loss=loss, class_weights=DeferredReweighting(start_step=5), mixup=0.75)
    network = partial(plain_network, cosine_scale=30.0) if isinstance(loss, LDAM) else plain_network
    _, gpu = fit(method, tmp_path, at_epoch_ends(tmp_path / "gpu"), network=network)
    assert of_steps(gpu) == []
    run(method, tmp_path, at_epoch_ends(tmp_path / "cpu"), network=network)
    assert_same_training(saved(tmp_path / "cpu"), saved(tmp_path / "gpu"))


@pytest.mark.parametrize("head", [TauNorm(), NCM()], ids=lambda head: type(head).__name__)
def test_computed_heads(head: ComputedHead, tmp_path: Path) -> None:
    made = post_hoc(source_checkpoint(tmp_path), head)
    fit(made, tmp_path, at_epoch_ends(tmp_path / "gpu"))
    run(made, tmp_path, at_epoch_ends(tmp_path / "cpu"))
    assert_same_training(saved(tmp_path / "cpu"), saved(tmp_path / "gpu"))


def test_evaluation_and_predictions(tmp_path: Path) -> None:
    tables = []
    for on_gpu in (True, False):
        with PretendedGPU() as gpu:
            device = {"accelerator": "auto", "strategy": gpu.strategy()} if on_gpu else {}
            trainer = run(
                Supervised, tmp_path, PredictionWriter(tmp_path / f"{on_gpu}.csv"), inference_mode=False, **device
            )
            model, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
            data.predict_set = "test"
            [tested] = trainer.test(model, data, verbose=False)
            trainer.predict(model, data)
            tables.append((tested, (tmp_path / f"{on_gpu}.csv").read_text()))
    assert tables[0] == tables[1] and len(tables[0][1].splitlines()) == 1 + 30


def test_what_a_gpu_refuses() -> None:
    with PretendedGPU():
        there, here = torch.ones(2, 2, device="cuda"), torch.ones(2, 2)
        assert (there + here.sum()).tolist() == [[5, 5], [5, 5]]  # a tensor without dimensions is a number
        for mistake in (
            lambda: there + here,
            lambda: torch.cat([here, there]),
            lambda: there.index_add_(0, torch.tensor([0, 1]), there),
        ):
            with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
                mistake()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device="cuda", generator=torch.Generator())
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


WAITS = {
    "item": lambda there, here: there.sum().item(),
    "truth": lambda there, here: bool((there > 0).all()),
    "list": lambda there, here: there.tolist(),
    "mask": lambda there, here: there[there > 0],
    "nonzero": lambda there, here: there.nonzero(),
    "equal": lambda there, here: torch.equal(there, there),
    "to the processor": lambda there, here: there.cpu(),
    "to the GPU": lambda there, here: here.to(there.device),
    "to the GPU from memory that may move": lambda there, here: here.to(there.device, non_blocking=True),
    "numbers": lambda there, here: there.new_tensor([1.0]),
}
NO_WAITS = {
    "pinned": lambda there, here: here.pin_memory().to(there.device, non_blocking=True),
    "where": lambda there, here: torch.where(there > 0, there, 0.0),
    "made there": lambda there, here: torch.zeros(3, device=there.device).index_fill_(0, there[0].long(), 2.0),
    "a number put in": lambda there, here: there.__setitem__(0, 3.0),
}


@pytest.mark.parametrize("name", [*WAITS, *NO_WAITS])
def test_where_the_host_waits(name: str) -> None:
    with PretendedGPU() as gpu:
        there = torch.ones(2, 2, device="cuda")
        {**WAITS, **NO_WAITS}[name](there, torch.ones(2, 2))
    assert [Path(wait.where.split(":")[0]).name for wait in gpu.waits] == [Path(__file__).name] * (name in WAITS)
