"""Recipes of several commands, as a user types them, on the embedded digits."""

import json
from pathlib import Path

import numpy as np
import torch

from tests.typed import tailmatch

DIGITS = [
    "--config=configs/data/digits_lt.yaml", "--data.image_size=8", "--data.steps_per_epoch=15",
    "--data.eval_batch_size=100", "--model.network=CifarResNet", "--model.network.depth=8",
    "--model.ema_decay=0.8", "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.devices=1",
    "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=5",
]  # fmt: skip


def test_supervised_then_pseudo_labels_then_self_training(tmp_path: Path) -> None:
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    tailmatch("fit", "--config=configs/methods/supervised.yaml", *DIGITS, f"--run_dir={teacher}")
    labels = teacher / "pseudo_labels.npz"
    assert f"437 pseudo-labels: {labels}" in tailmatch("predict", "--ckpt_path=best", f"--run_dir={teacher}")
    options = (f"--data.pseudo_labels={labels}", "--model.threshold=0.3", f"--run_dir={student}")
    out = tailmatch("fit", "--config=configs/methods/self_training.yaml", *DIGITS, *options)
    with np.load(labels) as arrays:
        selected = int((arrays["confidence"] >= np.float32(0.3)).sum())
    assert f"pseudo-labels: {selected} of 437 unlabeled images selected" in out
    assert torch.load(student / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 30
    tailmatch("test", "--ckpt_path=best", f"--run_dir={student}")
    record = json.loads((student / "test_metrics.json").read_text())
    assert len(record["recall"]) == 10 and 0 < record["metrics"]["balanced_accuracy"] <= 1
