"""Pre-training, and new heads on trained networks, as a user types them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.typed import SMALL, method, tailmatch

pytestmark = pytest.mark.xdist_group("crt")


def record_of_test(run_dir: Path) -> dict[str, Any]:
    """What a test of the best checkpoint leaves."""
    tailmatch("test", f"--run_dir={run_dir}", "--ckpt_path=best")
    record: dict[str, Any] = json.loads((run_dir / "test_metrics.json").read_text())
    assert record["checkpoint"] == str(run_dir / "checkpoints" / "best.ckpt")
    assert set(record["recall"]) == {str(k) for k in range(10)}
    return record


def new_head(recipe: str, source: Path, run_dir: Path) -> str:
    """A new head on a run's network, which is not named: it is the checkpoint's. The run is gone afterwards."""
    file = source / "checkpoints" / "last.ckpt"
    overlay = [f"--config=configs/methods/{recipe}.yaml", "--data.labeled_batch_size=16", "--trainer.max_epochs=2"]
    said = tailmatch("fit", *SMALL, *overlay, f"--model.checkpoint={file}", f"--run_dir={run_dir}")
    shutil.rmtree(source)
    return said


@pytest.fixture(scope="module")
def fixmatch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a short run."""
    folder = tmp_path_factory.mktemp("recipes") / "fixmatch"
    tailmatch("fit", *method("FixMatch"), "--data.unlabeled_ratio=2", "--model.ema_decay=null", f"--run_dir={folder}")
    return folder


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("crt", "with a new head: CRT"),
        ("tau_norm", "TauNorm: tau "),
        ("ncm", "NCM: means of 10 classes over 119 labeled images"),
    ],
)
def test_fixmatch_then_a_new_head_then_test(recipe: str, told: str, fixmatch: Path, tmp_path: Path) -> None:
    shutil.copytree(fixmatch, tmp_path / "fixmatch")
    assert told in new_head(recipe, tmp_path / "fixmatch", tmp_path / recipe)
    sampling = "balanced" if recipe == "crt" else "uniform"
    assert f"labeled_sampling: {sampling}" in (tmp_path / recipe / "config.yaml").read_text()
    assert record_of_test(tmp_path / recipe)["metrics"]["balanced_accuracy"] > 0.1  # chance


def test_rotation_then_supervised_then_crt(tmp_path: Path) -> None:
    rotation, supervised = tmp_path / "rotation", tmp_path / "supervised"
    tailmatch("fit", *method("RotationPretraining"), f"--run_dir={rotation}")
    file = rotation / "checkpoints" / "best.ckpt"  # by the accuracy of its nearest neighbors
    pretrained = f"--model.pretrained={file}"
    said = tailmatch("fit", *method("Supervised"), "--model.ema_decay=null", pretrained, f"--run_dir={supervised}")
    assert f"pretrained {file}: 42 of 46 tensors loaded from 'network.'" in said
    shutil.rmtree(rotation)  # what follows needs the supervised run alone
    record_of_test(supervised)
    assert "with a new head: CRT" in new_head("crt", supervised, tmp_path / "crt")
    record_of_test(tmp_path / "crt")
