"""Recipes of several commands, as a user types them, on the embedded digits."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
DIGITS = [
    "--config=configs/data/digits_lt.yaml", "--data.image_size=8", "--data.steps_per_epoch=15",
    "--data.eval_batch_size=100", "--model.network=lightning_modules.networks.CifarResNet", "--model.network.depth=8",
    "--model.ema_decay=0.8", "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.devices=1",
    "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=5",
]  # fmt: skip


def tailmatch(*args: str) -> str:
    command = [sys.executable, "cli.py", *args]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_self_training(tmp_path: Path) -> None:
    """Supervised -> predict pseudo-labels, on one and on two processes -> self-training -> test."""
    teacher, student, labels = tmp_path / "teacher", tmp_path / "student", tmp_path / "teacher" / "pseudo_labels.npz"
    tailmatch("fit", *DIGITS, "--config=configs/methods/supervised.yaml", f"--run_dir={teacher}")
    best = ("--ckpt_path=best", f"--run_dir={teacher}")
    assert f"437 pseudo-labels: {labels}" in tailmatch("predict", *best)
    two = ("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.callbacks+=callbacks.PseudoLabelWriter")
    tailmatch("predict", *best, *two, f"--trainer.callbacks.output={tmp_path}/two.npz")
    assert labels.read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert not list(tmp_path.rglob("*.partial"))

    method = ("--config=configs/methods/self_training.yaml", f"--data.pseudo_labels={labels}", "--model.threshold=0.3")
    out = tailmatch("fit", *DIGITS, *method, f"--run_dir={student}")
    with np.load(labels) as arrays:
        selected = int((arrays["confidence"] >= np.float32(0.3)).sum())
    assert f"pseudo-labels: {selected} of 437 unlabeled images selected" in out
    checkpoint = torch.load(student / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 30
    tailmatch("test", "--ckpt_path=best", f"--run_dir={student}")
    record = json.loads((student / "test_metrics.json").read_text())
    assert len(record["recall"]) == 10 and 0 < record["metrics"]["balanced_accuracy"] <= 1
