"""The command line as a user types it: run folders, resume, what wins, and what it says of bad input."""

import json
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tailmatch.datamodules.files import folder_layout
from tests.typed import call, method
from tests.typed import call_here as tailmatch
from tests.typed import tailmatch as typed

FIT = [
    "fit", "--config=configs/demo.yaml", "--data.image_size=8", "--data.steps_per_epoch=4",
    "--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=2",
    "--trainer.callbacks.warmup_epochs=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in a process of its own, read by several tests."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    result = call(*FIT, f"--run_dir={folder}", "--checkpoint.every_n_epochs=1")
    assert result.returncode == 0, result.stderr
    assert "images per class" in result.stdout and f"run folder: {folder}" in result.stdout
    return folder


def test_a_run_leaves_logs_config_and_checkpoints(run_dir: Path) -> None:
    names = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "epoch-0000.ckpt", "epoch-0001.ckpt"}
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["model"]["init_args"]["network"]["init_args"]["depth"] == 8
    events = EventAccumulator(str(run_dir), size_guidance={"images": 0}).Reload()
    scalars, images = set(events.Tags()["scalars"]), set(events.Tags()["images"])
    assert {"train/loss", "train/selected", "train/lr", "val/balanced_accuracy", "val/few_shot"} <= scalars
    assert {"pseudo/kl_refined", "pseudo/accuracy_raw", "darp/residual", "last5/top1/mean"} <= scalars
    assert images == {"data/class_counts", "data/views", "val/confusion", "val/recall", "pseudo/labels"}
    assert [event.step for event in events.Scalars("train/loss")] == [1, 3, 5, 7]


def test_best_checkpoint_is_tested_without_naming_the_config_again(run_dir: Path) -> None:
    before = (run_dir / "config.yaml").read_text()
    result = tailmatch("test", f"--run_dir={run_dir}", "--ckpt_path=best")
    assert result.returncode == 0, result.stderr
    assert "lowest recall" in result.stdout and "DataLoader 0" not in result.stdout
    record = json.loads((run_dir / "test_metrics.json").read_text())
    assert record["checkpoint"].endswith("best.ckpt") and record["step"] > 0
    assert set(record["recall"]) == {str(k) for k in range(10)}
    assert 0 < record["metrics"]["balanced_accuracy"] <= 1
    assert record["last_evaluations"]["evaluations"] == 2
    assert (run_dir / "config.yaml").read_text() == before


def test_a_callback_can_be_added_to_the_test_of_a_run_without_it(run_dir: Path, tmp_path: Path) -> None:
    test = ["test", f"--ckpt_path={run_dir}/checkpoints/last.ckpt"]
    losses = []
    for name, extra in (("plain", []), ("adjusted", ["--trainer.callbacks+=tailmatch.callbacks.LogitAdjustment"])):
        result = tailmatch(*test, f"--run_dir={tmp_path}/{name}", *extra)
        assert result.returncode == 0, result.stderr
        losses.append(json.loads((tmp_path / name / "test_metrics.json").read_text())["metrics"]["loss"])
    assert losses[0] != losses[1]


def test_a_checkpoint_elsewhere_brings_its_config_and_what_is_typed_wins(run_dir: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes((run_dir / "checkpoints" / "last.ckpt").read_bytes())
    result = tailmatch(
        "fit",
        f"--ckpt_path={moved}",
        "--trust_checkpoint=true",
        f"--run_dir={tmp_path}/more",
        "--trainer.max_epochs=3",
        "--model.threshold=0.6",
    )
    assert result.returncode == 0, result.stderr
    config = yaml.safe_load((tmp_path / "more" / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 3 and config["model"]["init_args"]["threshold"] == 0.6
    assert config["data"]["init_args"]["image_size"] == 8
    last = torch.load(tmp_path / "more" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 12


def test_a_checkpoint_of_a_former_version_resumes_to_the_same_bits(run_dir: Path, tmp_path: Path) -> None:
    content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    former = content["config"].replace("tailmatch.", "").replace("modules.training.", "modules.optimization.")
    assert "class_path: lightning_modules.optimization.FixMatchSGD" in former
    ended = []
    for name, config in (("today", content["config"]), ("former", former)):
        torch.save(content | {"config": config}, tmp_path / f"{name}.ckpt")
        words = [f"--ckpt_path={tmp_path / name}.ckpt", f"--run_dir={tmp_path / name}", "--trainer.max_epochs=3"]
        result = tailmatch("fit", *words, "--trust_checkpoint=true")
        assert result.returncode == 0, result.stderr
        ended.append(torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True))
    today, old = ended
    assert today["config"] == old["config"].replace(f"{tmp_path}/former", f"{tmp_path}/today")
    assert today["callbacks"]["DARP"].keys() == old["callbacks"]["DARP"].keys()
    for part in ("state_dict", "trained_weights"):
        assert today[part].keys() == old[part].keys()
        assert all(torch.equal(tensor, old[part][name]) for name, tensor in today[part].items())


def test_a_checkpoint_of_a_former_class_order_keeps_it(tmp_path: Path) -> None:
    for number in range(1, 12):
        for split in ("train", "test"):
            folder = tmp_path / "data" / split / str(number)
            folder.mkdir(parents=True)
            for k in range(3):
                Image.new("RGB", (8, 8), (20 * number, 80 * k, 0)).save(folder / f"{k}.png")
    words = [
        f"--data.root={tmp_path}/data", f"--data.cache_dir={tmp_path}/cache", "--data.image_size=8",
        "--data.class_counts=LabeledFraction", "--data.class_counts.fraction=0.5", "--data.val_holdout=0.34",
    ]  # fmt: skip
    data, mine = [word for word in method("Supervised") if not word.startswith("--data")], f"--run_dir={tmp_path}/run"
    fit = [*data, "--data=ImageFolder", *words, "--data.labeled_batch_size=2", "--data.steps_per_epoch=1", mine]
    fit.append("--trainer.max_epochs=1")
    test, metrics = ["test", mine, "--ckpt_path=last"], tmp_path / "run" / "test_metrics.json"
    with mock.patch.object(folder_layout, "sorted_names", sorted):  # 1, 10, 11, 2, ...: the order of version 0.1
        typed("fit", *fit)
        typed(*test)
    before = json.loads(metrics.read_text())
    typed(*test)
    assert list(before["recall"])[:3] == ["1", "10", "11"]
    assert json.loads(metrics.read_text()) == before
    typed("fit", mine, "--ckpt_path=last", "--trainer.max_epochs=2")
    resumed = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert resumed["class_names"][:3] == ["1", "10", "11"]


def test_a_second_run_into_a_folder_is_refused_or_moves_the_first_aside(tmp_path: Path) -> None:
    short = [*FIT, f"--run_dir={tmp_path}/run", "--trainer.max_epochs=1"]
    assert tailmatch(*short).returncode == 0
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    refused = tailmatch(*short)
    assert refused.returncode == 1
    assert "holds a run: resume it with --ckpt_path last" in refused.stderr and "Traceback" not in refused.stderr
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == before
    anew = tailmatch(*short, "--overwrite=true")
    assert anew.returncode == 0 and "moved the old run to" in anew.stdout
    assert (tmp_path / "run-old" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_another_seed_is_refused_on_resume(run_dir: Path) -> None:
    result = tailmatch("fit", f"--run_dir={run_dir}", "--ckpt_path=last", "--seed_everything=5")
    assert result.returncode == 1 and "trained on another split of the data" in result.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--model.threshhold=0.7"], 2, "Option 'threshhold' is not accepted by FixMatch\n  Did you mean: threshold?"),
        (["--model=UDA", "--model.soft_targets=true"], 2, "not accepted by UDA, which sets it itself: leave it out\n"),
        (["--trainer.max_epoch_s=3"], 2, "Did you mean: trainer.max_epochs"),
        (["--model=tailmatch.lightning_modules.FixMatchh"], 2, "Did you mean: FixMatch"),
        (["--model=DARP"], 2, "DARP is a class of this package, and none for this option\n"),
        (["--model.threshold=7"], 1, "threshold is 7.0; it must be in [0, 1]"),
        (["--ckpt_path=last"], 1, "no checkpoint "),
        (["--model.optimizer.lr=1e30"], 1, "became NaN or infinite"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_message(args: list[str], code: int, message: str, tmp_path: Path) -> None:
    result = tailmatch(*FIT, f"--run_dir={tmp_path}/run", *args)
    assert result.returncode == code, result.stderr
    assert f"tailmatch: error: {message}" in result.stderr or message in result.stderr
    assert "Traceback" not in result.stderr and "Subtypes" not in result.stderr
    began = "NaN" in message
    assert (tmp_path / "run" / "config.yaml").exists() == began  # what never began can be tried again


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "--run_dir=runs"], "are required: --data, --model\n  Or give a --config that has them, or --run_dir"),
        (
            ["test", "--run_dir=runs"],
            "are required: --data, --model\n  Or give --ckpt_path FILE, or --run_dir RUN --ck",
        ),
    ],
    ids=["fit", "test"],
)
def test_a_command_without_data_says_where_they_may_come_from(args: list[str], message: str) -> None:
    result = tailmatch(*args)
    assert result.returncode == 2 and message in result.stderr


def test_a_class_of_the_user_that_is_not_found_says_where_to_run() -> None:
    result = tailmatch(*FIT, "--trainer.callbacks+=my_remedies.Debias")
    assert result.returncode == 2 and "expect one of" not in result.stderr and "a dict" not in result.stderr
    assert "No module named 'my_remedies'" in result.stderr
    assert result.stderr.endswith("if it is a file of yours, run this in its folder, or with that in PYTHONPATH\n")


def test_a_mistyped_checkpoint_names_those_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "best.ckpt").touch()
    result = tailmatch("test", f"--run_dir={tmp_path}", "--ckpt_path=bset")
    assert result.stderr == f"tailmatch: error: no checkpoint bset; {folder} has best.ckpt\n"


def test_a_run_without_a_checkpoint_makes_room_for_another(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for name in ("config.yaml", "events.out.tfevents.1.host.2.0", "notes.txt"):
        (run_dir / name).write_text(f"{name} of before")
    result = tailmatch(*FIT, f"--run_dir={run_dir}")
    assert result.returncode == 0 and f"moved its files to {run_dir}-old" in result.stdout
    old = tmp_path / "run-old"
    assert sorted(path.name for path in old.iterdir()) == ["config.yaml", "events.out.tfevents.1.host.2.0"]
    assert (old / "config.yaml").read_text() == "config.yaml of before"
    assert (run_dir / "notes.txt").read_text() == "notes.txt of before"
    assert (run_dir / "config.yaml").is_file() and (run_dir / "checkpoints" / "last.ckpt").is_file()


def test_files_of_a_run_are_in_its_folder_wherever_its_logger_writes(run_dir: Path, tmp_path: Path) -> None:
    words = [f"--config={run_dir}/config.yaml", f"--run_dir={run_dir}", f"--ckpt_path={run_dir}/checkpoints/best.ckpt"]
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}/logs"]
    result = tailmatch("test", *words, *logger)
    assert result.returncode == 0 and f"test metrics: {run_dir}/test_metrics.json" in result.stdout
    assert (run_dir / "test_metrics.json").is_file() and not list(tmp_path.rglob("test_metrics.json"))


def test_a_checkpoint_named_in_a_configuration_is_evaluated(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "test.yaml").write_text(f"run_dir: {run_dir}\nckpt_path: best\ntrainer: {{limit_test_batches: 1}}\n")
    result = tailmatch("test", f"--config={tmp_path}/test.yaml")
    assert result.returncode == 0, result.stderr
    record = json.loads((run_dir / "test_metrics.json").read_text())
    assert record["checkpoint"] == f"{run_dir}/checkpoints/best.ckpt"


def test_a_missing_pretrained_file_can_be_mended_in_the_same_folder(tmp_path: Path) -> None:
    result = tailmatch(*FIT, f"--run_dir={tmp_path}/run", "--model.pretrained=nowhere.ckpt")
    assert result.returncode == 1 and "'nowhere.ckpt' does not exist" in result.stderr
    assert tailmatch(*FIT, f"--run_dir={tmp_path}/run").returncode == 0


def test_a_nan_leaves_the_last_good_checkpoint(run_dir: Path, tmp_path: Path) -> None:
    good = run_dir / "checkpoints" / "last.ckpt"
    resume = ["fit", f"--ckpt_path={good}", "--trust_checkpoint=true", f"--run_dir={tmp_path}"]
    result = tailmatch(*resume, "--trainer.max_epochs=4", "--model.lambda_u=1e300")
    assert result.returncode == 1 and "became NaN or infinite before step" in result.stderr
    assert f"continue from it: tailmatch fit --run_dir {run_dir} --ckpt_path last --model.optimizer.lr" in result.stderr
    assert not list((tmp_path / "checkpoints").glob("*"))
    assert torch.load(good, weights_only=True)["global_step"] == 8


def test_testing_needs_a_checkpoint() -> None:
    result = tailmatch("test", "--config=configs/demo.yaml")
    assert result.returncode == 1 and "test needs trained weights: add --ckpt_path" in result.stderr
