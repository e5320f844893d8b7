"""What every method must do: fit, resume exactly, test, run on two processes. A method joins by being listed."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer, seed_everything

from callbacks import DARP, LastEvaluations, PseudoLabelGenerator, PseudoLabelMonitor
from callbacks.checkpoints import AtomicCheckpointIO, LastCheckpoint
from datamodules import Digits, ListedCounts
from lightning_modules import FixMatch, ImageClassifier, SelfTraining, SemiSupervisedClassifier, Supervised
from lightning_modules.networks import CifarResNet

METHODS: list[type[ImageClassifier]] = [FixMatch, SelfTraining, Supervised]
COMPANIONS: dict[type[ImageClassifier], Callable[[], Callback]] = {
    SelfTraining: partial(PseudoLabelGenerator, every_n_epochs=1)
}
"""Callbacks without which a method does not train."""
STEPS_PER_EPOCH, EPOCHS = 4, 3

SEMI_SUPERVISED = [method for method in METHODS if issubclass(method, SemiSupervisedClassifier)]

methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


class Killed(Exception):
    pass


class Kill(Callback):
    """Stops the run with an exception after a number of steps, as a kill would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.after:
            raise Killed


def run(method: type[ImageClassifier], folder: Path, *callbacks: Callback, ckpt: Path | None = None) -> Trainer:
    seed_everything(3)
    data = Digits(
        image_size=8,
        class_counts=ListedCounts([4] * 10, [6] * 10),
        labeled_batch_size=6,
        unlabeled_ratio=2,
        steps_per_epoch=STEPS_PER_EPOCH,
        val_holdout=2,
        test_holdout=3,
    )
    model = method(num_classes=10, network=partial(CifarResNet, depth=8), ema_decay=0.5)
    companions = [COMPANIONS[method]()] if method in COMPANIONS else []
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[*companions, *callbacks],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=3,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data, ckpt_path=ckpt)
    return trainer


def last(folder: Path, **kwargs: Any) -> LastCheckpoint:
    return LastCheckpoint(dirpath=folder, filename="last", enable_version_counter=False, **kwargs)


def at_epoch_ends(folder: Path) -> LastCheckpoint:
    return last(folder, every_n_epochs=1, save_on_train_epoch_end=True)


def assert_same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{number}]")
    else:
        assert a == b, where


@methods
@pytest.mark.parametrize(
    ("killed_after", "saving"),
    [
        pytest.param(7, lambda p: last(p, every_n_train_steps=3), id="saved in mid-epoch"),
        pytest.param(7, at_epoch_ends, id="saved at the end of an epoch"),
        pytest.param(10, lambda p: last(p, every_n_train_steps=8), id="saved on the last step of an epoch"),
    ],
)
def test_a_killed_and_resumed_run_ends_with_the_same_bits(
    method: type[ImageClassifier], killed_after: int, saving: Any, tmp_path: Path
) -> None:
    run(method, tmp_path, at_epoch_ends(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(method, tmp_path, saving(tmp_path / "killed"), Kill(killed_after))
    checkpoint = tmp_path / "killed" / "last.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    assert 0 < saved["global_step"] <= killed_after
    trainer = run(method, tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=checkpoint)
    assert trainer.global_step == STEPS_PER_EPOCH * EPOCHS

    whole = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)
    resumed = torch.load(tmp_path / "resumed" / "last.ckpt", weights_only=True)
    for part in ("state_dict", "trained_weights", "optimizer_states", "lr_schedulers", "class_names"):
        assert_same(whole[part], resumed[part], part)


@pytest.mark.parametrize("method", SEMI_SUPERVISED, ids=lambda m: m.__name__)
@pytest.mark.parametrize("steps", [6, 7])
def test_a_remedy_changes_the_training_and_resumes_exactly(
    method: type[SemiSupervisedClassifier], steps: int, tmp_path: Path
) -> None:
    def remedy() -> list[Callback]:
        return [DARP(warmup_epochs=1, refine_every=2), PseudoLabelMonitor(), LastEvaluations(2)]

    run(method, tmp_path, at_epoch_ends(tmp_path / "plain"))
    run(method, tmp_path, *remedy(), at_epoch_ends(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(method, tmp_path, *remedy(), last(tmp_path / "killed", every_n_train_steps=steps), Kill(steps + 1))
    checkpoint = tmp_path / "killed" / "last.ckpt"
    run(method, tmp_path, *remedy(), at_epoch_ends(tmp_path / "resumed"), ckpt=checkpoint)

    saved = {
        name: torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("plain", "whole", "resumed")
    }
    for part in ("state_dict", "trained_weights", "optimizer_states"):
        assert_same(saved["whole"][part], saved["resumed"][part], part)
    for callback in ("DARP", "LastEvaluations"):
        assert_same(saved["whole"]["callbacks"][callback], saved["resumed"]["callbacks"][callback], callback)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(saved["plain"]["state_dict"].values(), saved["whole"]["state_dict"].values(), strict=True)
    )


@methods
def test_averaged_weights_are_what_is_tested(method: type[ImageClassifier], tmp_path: Path) -> None:
    trainer = run(method, tmp_path, at_epoch_ends(tmp_path))
    in_process = trainer.test(trainer.lightning_module, trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
    from_file = trainer.test(
        trainer.lightning_module, trainer.datamodule, ckpt_path=str(tmp_path / "last.ckpt"), verbose=False  # type: ignore[attr-defined]
    )  # fmt: skip
    assert in_process == from_file and in_process[0]["test/loss"] > 0


def tailmatch(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "cli.py", *args]
    root = Path(__file__).parent.parent
    return subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300)


SMALL = [
    "--data=datamodules.Digits", "--data.image_size=8", "--data.labeled_batch_size=6", "--data.unlabeled_ratio=2",
    "--data.steps_per_epoch=3", "--data.eval_batch_size=7", "--trainer.max_epochs=2", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=2",
]  # fmt: skip


def arguments(method: type[ImageClassifier]) -> list[str]:
    network = ["--model.network=lightning_modules.networks.CifarResNet", "--model.network.depth=8"]
    companions = []
    if method in COMPANIONS:
        companions = ["--trainer.callbacks+=callbacks.PseudoLabelGenerator", "--trainer.callbacks.every_n_epochs=1"]
    return [*SMALL, f"--model=lightning_modules.{method.__name__}", *network, *companions]


@methods
def test_two_processes_train_and_test_every_image_once(method: type[ImageClassifier], tmp_path: Path) -> None:
    devices = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    remedy = []
    if method in SEMI_SUPERVISED:
        remedy = ["--config=configs/callbacks/darp.yaml", "--trainer.callbacks.warmup_epochs=1"]
    fit = tailmatch("fit", *arguments(method), *devices, *remedy, f"--run_dir={tmp_path}/run")
    assert fit.returncode == 0, fit.stderr
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    if remedy:
        state = checkpoint["callbacks"]["DARP"]
        assert len(state["predictions"]) == len(state["refined"]) > 1000
    if remedy or method in COMPANIONS:
        one = ["--trainer.devices=1", "--trainer.strategy=auto", "--trainer.max_epochs=3"]
        more = tailmatch("fit", f"--run_dir={tmp_path}/run", "--ckpt_path=last", *one)
        assert more.returncode == 0, more.stderr

    results = []
    for count in (["--trainer.devices=1", "--trainer.strategy=auto"], devices):
        test = tailmatch("test", f"--run_dir={tmp_path}/run", "--ckpt_path=last", *count)
        assert test.returncode == 0, test.stderr
        results.append(json.loads((tmp_path / "run" / "test_metrics.json").read_text()))
    for name, value in results[0]["metrics"].items():
        assert results[1]["metrics"][name] == pytest.approx(value, rel=1e-5), name


def test_weights_for_other_classes_are_refused() -> None:
    model = Supervised(num_classes=3, network=partial(CifarResNet, depth=8))
    model.class_names = ["ant", "bee", "cow"]
    model.on_load_checkpoint({"class_names": ["ant", "bee", "cow"]})
    with pytest.raises(ValueError, match=r"only there \['dog'\], only here \['bee'\]"):
        model.on_load_checkpoint({"class_names": ["ant", "cow", "dog"]})
