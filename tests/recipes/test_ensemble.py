"""The demo's checkpoints as an ensemble and as an exported file, as a user types them."""

import json
from pathlib import Path

import numpy
import onnxruntime
import pytest
import torch
import yaml

from tailmatch import cli
from tailmatch.command_line.settings_of_checkpoint import data_of_members
from tailmatch.command_line.typed import Typed
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.inference.trained_network import trained_network
from tests.typed import tailmatch

pytestmark = pytest.mark.xdist_group("ensemble")

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
SHORT = ["--trainer.max_epochs=2", "--data.steps_per_epoch=8", "--trainer.log_every_n_steps=4"]
SEED = 4  # the split depends on it


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the demo, cut short."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    other = [f"--seed_everything={SEED}", "--trainer.callbacks.warmup_epochs=0", f"--run_dir={folder}"]
    tailmatch("fit", "--config=configs/demo.yaml", *QUIET, *SHORT, *other)
    return folder / "checkpoints"


def test_an_ensemble_takes_data_and_seed_of_its_first_checkpoint(demo: Path, tmp_path: Path) -> None:
    members = f"[{demo / 'best.ckpt'}, {demo / 'last.ckpt'}]"
    ensemble = ["--model=Ensemble", f"--model.checkpoints={members}", "--model.crops=2", f"--run_dir={tmp_path}"]
    cli.main(["test", *ensemble, *QUIET])  # of another seed and so another split, it would be refused
    record = json.loads((tmp_path / "test_metrics.json").read_text())
    assert record["checkpoint"] == [str(demo / "best.ckpt"), str(demo / "last.ckpt")]
    assert 0 < record["metrics"]["balanced_accuracy"] <= 1
    taken = yaml.safe_load(data_of_members(Typed.read(["test", "--model.checkpoints", members])) or "")
    assert taken["seed_everything"] == SEED and taken["data"]["class_path"] == "tailmatch.datamodules.Digits"


def test_the_demos_checkpoint_runs_in_onnxruntime(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "demo.onnx"
    cli.main(["export", str(demo / "best.ckpt"), str(file)])
    assert capsys.readouterr().out == f"exported: {file}\n"
    images = numpy.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=numpy.uint8)
    [probs] = onnxruntime.InferenceSession(file).run(["probs"], {"images": images})
    network = trained_network(read_checkpoint(str(demo / "best.ckpt")), "best.ckpt")
    expected = network(torch.from_numpy(images) / 255).softmax(dim=1)
    torch.testing.assert_close(torch.from_numpy(probs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit"], "Ensemble has its own weights and cannot be trained: use test, validate or predict"),
        (["test", "--ckpt_path={demo}/best.ckpt"], "Ensemble brings its weights: leave out --ckpt_path"),
        (["validate", "--seed_everything=5"], "trained on another split of the data"),
        (["validate", "--model.flip=true"], "flip is true, and a mirrored image of Digits may be of another class"),
    ],
)
def test_what_an_ensemble_is_not_for(args: list[str], message: str, demo: Path, tmp_path: Path) -> None:
    members = ["--model=Ensemble", f"--model.checkpoints=[{demo / 'best.ckpt'}]", f"--run_dir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit, match=f"tailmatch: error: .*{message}"):
        cli.main([args[0], *members, *[arg.format(demo=demo) for arg in args[1:]], *QUIET])
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_an_export_of_another_format_is_one_message(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"tailmatch: error: .*must end in \.onnx \(ONNX\) or \.pt2"):
        cli.main(["export", str(demo / "best.ckpt"), str(tmp_path / "demo.txt")])
