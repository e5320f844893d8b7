"""Recipes of several commands, as a user types them, on the embedded digits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.typed import call, tailmatch

DIGITS = [
    "--config=configs/data/digits_lt.yaml", "--data.image_size=8", "--data.steps_per_epoch=15",
    "--data.eval_batch_size=100", "--model.network=CifarResNet", "--model.network.depth=8",
    "--model.ema_decay=0.8", "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.devices=1",
    "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supervised run and its pseudo-labels."""
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    tailmatch("fit", *DIGITS, "--config=configs/methods/supervised.yaml", f"--run_dir={folder}")
    out = tailmatch("predict", "--ckpt_path=best", f"--run_dir={folder}")
    assert f"437 pseudo-labels: {folder / 'pseudo_labels.npz'}" in out
    return folder


def test_self_training(teacher: Path, tmp_path: Path) -> None:
    """Supervised -> predict pseudo-labels -> self-training -> test."""
    labels = teacher / "pseudo_labels.npz"
    method = ("--config=configs/methods/self_training.yaml", f"--data.pseudo_labels={labels}", "--model.threshold=0.3")
    out = tailmatch("fit", *DIGITS, *method, f"--run_dir={tmp_path}")
    with np.load(labels) as arrays:
        selected = int((arrays["confidence"] >= np.float32(0.3)).sum())
    assert f"pseudo-labels: {selected} of 437 unlabeled images selected" in out
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 30
    tailmatch("test", "--ckpt_path=best", f"--run_dir={tmp_path}")
    record = json.loads((tmp_path / "test_metrics.json").read_text())
    assert len(record["recall"]) == 10 and 0 < record["metrics"]["balanced_accuracy"] <= 1


def test_two_processes_write_the_same_pseudo_labels(teacher: Path, tmp_path: Path) -> None:
    two = (
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.callbacks+=PseudoLabelWriter",
    )
    output = f"--trainer.callbacks.output={tmp_path}/two.npz"
    result = call("predict", "--ckpt_path=best", f"--run_dir={teacher}", *two, output)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["two.npz"]
    assert (teacher / "pseudo_labels.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
