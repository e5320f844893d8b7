"""Recipes of several runs, as a user types them."""

import json
import shutil
from pathlib import Path

from tests.command_line import tailmatch

SMALL = [
    "--data=datamodules.Digits", "--data.image_size=16", "--data.labeled_batch_size=16", "--data.steps_per_epoch=10",
    "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=5",
]  # fmt: skip


def method(name: str) -> list[str]:
    """A method with a small network."""
    network = ["--model.network=lightning_modules.networks.CifarResNet", "--model.network.depth=8"]
    return [*SMALL, f"--model=lightning_modules.{name}", *network]


def test_rotation_then_supervised_then_test(tmp_path: Path) -> None:
    rotation, supervised = tmp_path / "rotation", tmp_path / "supervised"
    tailmatch("fit", *method("RotationPretraining"), f"--run_dir={rotation}")
    file = rotation / "checkpoints" / "best.ckpt"  # by the accuracy of its nearest neighbors
    said = tailmatch("fit", *method("Supervised"), f"--model.pretrained={file}", f"--run_dir={supervised}")
    assert f"pretrained {file}: 42 of 46 tensors loaded from 'network.'" in said
    shutil.rmtree(rotation)  # a test needs the supervised run alone
    tailmatch("test", f"--run_dir={supervised}", "--ckpt_path=best")
    record = json.loads((supervised / "test_metrics.json").read_text())
    assert record["checkpoint"] == str(supervised / "checkpoints" / "best.ckpt")
    assert set(record["recall"]) == {str(k) for k in range(10)}
