"""Recipes of several runs, as a user types them."""

import json
import shutil
from pathlib import Path

from tests.typed import method, tailmatch


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
