"""What every method must do on two processes, with every remedy: fit, resume exactly, test every image once."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from tailmatch.lightning_modules import FixMatch, ImageClassifier, MixMatch, SelfTraining, SimMixMatch
from tailmatch.lightning_modules.heads import NCM, ComputedHead, TauNorm
from tailmatch.lightning_modules.losses import nt_xent
from tests.contract import (
    ARGUMENTS,
    EPOCHS,
    METHODS,
    NO_REMEDY,
    STEPS_PER_EPOCH,
    assert_same,
    assert_same_training,
    at_epoch_ends,
    callbacks_of,
    category_network,
    differs,
    post_hoc,
    remedies,
    run,
    saved,
    source_checkpoint,
)
from tests.two_processes import case_folder, embeddings, save_predictions, write_photos

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all cases, each run by the same two processes."""
    folder = tmp_path_factory.mktemp("two-processes")
    write_photos(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "tests.two_processes", str(folder)]
    logs = [(folder / f"{rank}.log").open("w") for rank in range(2)]
    processes = [
        subprocess.Popen(
            command, env={**os.environ, **place, "LOCAL_RANK": str(rank)}, cwd=ROOT, stdout=log, stderr=log
        )
        for rank, log in enumerate(logs)
    ]
    try:
        for process in processes:
            process.wait(timeout=900)
    finally:
        for process, log in zip(processes, logs, strict=True):
            process.kill()
            log.close()
    return folder


cases = pytest.mark.parametrize(
    ("method", "remedy"),
    [(method, remedy) for method in METHODS for remedy in remedies(method)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)


@cases
def test_two_processes(method: type[ImageClassifier], remedy: str, runs: Path, tmp_path: Path) -> None:
    folder = case_folder(runs, method, remedy)
    assert (folder / "result.json").exists(), f"never came to it; see {runs}/0.log and 1.log"
    result = json.loads((folder / "result.json").read_text())
    assert "error" not in result, result["error"]

    whole, resumed = saved(folder / "whole"), saved(folder / "resumed")
    assert whole["global_step"] == STEPS_PER_EPOCH * EPOCHS
    assert_same_training(whole, resumed, remedy)
    if remedy == NO_REMEDY:
        one = run(method, tmp_path)  # the same test images on one process, with the weights of two
        [metrics] = one.test(one.lightning_module, one.datamodule, folder / "whole" / "last.ckpt", verbose=False)  # type: ignore[attr-defined]
        assert result["metrics"] == pytest.approx(metrics, rel=1e-5)
    else:
        plain = saved(case_folder(runs, method, NO_REMEDY) / "whole")
        assert differs(plain["state_dict"], whole["state_dict"])


def test_categories_are_learned_on_two_processes(runs: Path, tmp_path: Path) -> None:
    folder = runs / "categories"
    whole = saved(folder / "whole")
    assert_same_training(whole, saved(folder / "resumed"))
    first = run(MixMatch, tmp_path, network=category_network).lightning_module.state_dict()  # on one process
    assert differs(first, whole["state_dict"])


def test_darp_goes_on_with_another_number_of_processes(runs: Path, tmp_path: Path) -> None:
    method = FixMatch
    checkpoint = case_folder(runs, method, "DARP") / "killed" / "last.ckpt"
    trainer: Trainer = run(method, tmp_path, *callbacks_of("DARP"), at_epoch_ends(tmp_path), ckpt=checkpoint)
    assert trainer.global_step == STEPS_PER_EPOCH * EPOCHS
    assert saved(tmp_path)["callbacks"]["DARP"]["predictions"].sum(dim=1).count_nonzero() > 0


def test_the_contrast_over_processes_has_the_gradient_of_the_whole(runs: Path) -> None:
    folder = case_folder(runs, SimMixMatch, NO_REMEDY)
    everything = embeddings().requires_grad_()
    nt_xent(everything.transpose(0, 1).flatten(1, 2), temperature=0.1).backward()  # type: ignore[no-untyped-call]
    assert everything.grad is not None
    for process, expected in enumerate(everything.grad):
        # Each process' loss is a mean over its own views: data-parallel training averages the two gradients.
        gradient = torch.load(folder / f"contrast-{process}.pt", weights_only=True) / 2
        assert torch.allclose(gradient, expected, atol=1e-6)


def test_labels_of_all_images_are_replaced_on_two_processes(runs: Path) -> None:
    folder = case_folder(runs, SelfTraining, NO_REMEDY)
    states = [saved(folder / name)["callbacks"]["PseudoLabelGenerator"] for name in ("whole", "resumed")]
    assert_same(states[0], states[1], "labels")
    labeled = states[0]["labeled"]
    report = [(folder / name / "relabeled.csv").read_text() for name in ("whole", "resumed")]
    listed = {int(line.split(",")[0]) for line in report[0].splitlines()[1:]}
    assert report[0] == report[1] and len(labeled["label"]) == 40
    given = torch.arange(10).repeat_interleave(4)
    replaced = (labeled["label"] != given) & (labeled["confidence"] >= ARGUMENTS[SelfTraining]["relabel_threshold"])
    assert listed == set(replaced.nonzero().squeeze(1).tolist()) and len(listed) > 0


@pytest.mark.parametrize("head", [TauNorm(), NCM()], ids=lambda head: type(head).__name__)
def test_a_head_is_computed_from_the_images_of_all_processes(head: ComputedHead, runs: Path, tmp_path: Path) -> None:
    first, second = (torch.load(runs / f"{type(head).__name__}-{rank}.pt", weights_only=True) for rank in range(2))
    assert_same(first, second, "ranks")
    one = run(post_hoc(source_checkpoint(tmp_path), head), tmp_path)
    for name, value in one.lightning_module.network.head.state_dict().items():  # type: ignore[union-attr]
        torch.testing.assert_close(first[f"network.head.{name}"], value)


def test_predictions_are_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    save_predictions(runs, tmp_path)
    for name, rows in (("digits", 400), ("photos", 11)):
        text = (tmp_path / f"{name}.csv").read_text()
        assert text.count("\n") == 1 + rows
        for suffix in (".csv", ".parquet"):
            file = f"{name}{suffix}"
            assert (runs / "predictions" / file).read_bytes() == (tmp_path / file).read_bytes(), file
    parts = {"digits.csv", "digits.parquet", "photos.csv", "photos.parquet", "cache"}
    assert {path.name for path in (runs / "predictions").iterdir()} == parts
    assert not list((runs / "predictions" / "cache").iterdir())
