"""Test that every method fits, resumes exactly and tests. A method joins by a line in `contract.py`."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from tailmatch.lightning_modules import FixMatch, ImageClassifier, Supervised
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.networks import CifarResNet, NetworkFactory
from tests.contract import (
    EPOCHS,
    METHODS,
    MODES,
    NO_REMEDY,
    REMEDIES,
    SAVINGS,
    STEPS_PER_EPOCH,
    Case,
    Kill,
    Killed,
    Log,
    Runs,
    assert_same_training,
    at_epoch_ends,
    callbacks_of,
    cases,
    category_network,
    differs,
    each,
    last,
    pairs,
    plain_network,
    prepare,
    run,
    saved,
    stands_for_itself,
)
from tests.typed import tailmatch

ROOT = Path(__file__).parent.parent


def test_every_pair_has_its_turn_and_every_remedy_is_in_every_mode() -> None:
    assert set(pairs()) <= {case for mode in MODES for case in cases(mode)}
    for mode in MODES:
        used = [remedy for _, remedy in cases(mode)]
        assert len(set(cases(mode))) == len(used) and set(REMEDIES) <= set(used)


def resumed_ends_as_whole(
    case: Case, mode: str, runs: Runs, folder: Path, *callbacks: Callback, network: NetworkFactory = plain_network
) -> dict[str, Any]:
    """Resume the killed run; its state at the end, after it was found to be that of the run that was never stopped.

    What both parts logged is what the run logged that was never stopped, with all bits and in the same order.
    """
    method, remedy = case
    killed, (never_stopped, _) = runs.killed(method, remedy, network), runs.whole(method, remedy, network)
    checkpoint = killed / mode / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == (7 if mode == "saved in mid-epoch" else 8)
    more = (*callbacks_of(remedy), *callbacks)
    log = Log()
    trainer = run(method, folder, *more, at_epoch_ends(folder), ckpt=checkpoint, network=network, logger=log)
    assert trainer.global_step == STEPS_PER_EPOCH * EPOCHS
    whole, resumed = saved(never_stopped), saved(folder)
    assert_same_training(whole, resumed, remedy)
    before = runs.logs[killed].entries[: runs.logs[killed].saved[mode]]
    assert before + log.entries == runs.logs[never_stopped].entries
    return resumed


@pytest.mark.parametrize(("method", "remedy", "mode"), each((*case, mode) for mode in SAVINGS for case in cases(mode)))
def test_a_killed_and_resumed_run_ends_with_the_same_bits(
    method: type[ImageClassifier], remedy: str, mode: str, runs: Runs, tmp_path: Path
) -> None:
    resumed_ends_as_whole((method, remedy), mode, runs, tmp_path)


@pytest.mark.parametrize(("method", "remedy"), each([(FixMatch, "DARP")]))
def test_a_run_resumed_from_the_last_step_of_an_epoch_and_again_within_the_next(
    method: type[ImageClassifier], remedy: str, runs: Runs, tmp_path: Path
) -> None:
    checkpoint = runs.killed(method, remedy) / "saved on the last step of an epoch" / "last.ckpt"
    with pytest.raises(Killed):
        run(method, tmp_path, *callbacks_of(remedy), last(tmp_path, every_n_train_steps=1), Kill(10), ckpt=checkpoint)
    assert saved(tmp_path)["global_step"] == 9
    folder = tmp_path / "again"
    trainer = run(method, folder, *callbacks_of(remedy), at_epoch_ends(folder), ckpt=tmp_path / "last.ckpt")
    assert trainer.global_step == STEPS_PER_EPOCH * EPOCHS
    assert_same_training(saved(runs.whole(method, remedy)[0]), saved(folder), remedy)


@pytest.mark.parametrize(("method", "remedy"), each(pairs()))
def test_a_remedy_changes_the_training(method: type[ImageClassifier], remedy: str, runs: Runs) -> None:
    plain, whole = (saved(runs.whole(method, name)[0]) for name in (NO_REMEDY, remedy))
    assert differs(plain["state_dict"], whole["state_dict"])


@pytest.mark.parametrize("method", each())
def test_averaged_weights_are_what_is_tested(method: type[ImageClassifier], runs: Runs, tmp_path: Path) -> None:
    folder, in_process = runs.whole(method)
    trainer, model, data = prepare(method, tmp_path)
    [from_file] = trainer.test(model, data, ckpt_path=folder / "last.ckpt", verbose=False)
    assert in_process == from_file and in_process["test/loss"] > 0


class SeenCategories(Callback):
    """Notes what share of the levels is known, in each pass of several images through a `CategoryNetwork`."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def setup(self, trainer: Trainer, pl_module: ImageClassifier, stage: str) -> None:  # type: ignore[override]
        embeddings = pl_module.network.get_submodule("category_embeddings")
        embeddings.register_forward_pre_hook(self.note)

    def note(self, embeddings: Any, args: tuple[Tensor]) -> None:
        if len(args[0]) > 1:  # not that without content
            self.shares.append(1 - float(args[0][:, embeddings.translation[:, 0]].mean()))


@pytest.mark.parametrize(("method", "remedy"), each(cases("categories"), stands_for_itself))
def test_a_run_with_categories_resumes_exactly_and_is_tested_as_it_is_saved(
    method: type[ImageClassifier], remedy: str, runs: Runs, tmp_path: Path
) -> None:
    seen = SeenCategories()
    state = resumed_ends_as_whole(
        (method, remedy), "saved in mid-epoch", runs, tmp_path / "resumed", seen, network=category_network
    )
    assert len(seen.shares) >= 5 + 2 and min(seen.shares) > 0.3  # 0.72 without chance
    assert [level["name"] for level in state["categories"]] == ["shade", "side"]

    folder, in_process = runs.whole(method, remedy, category_network)
    trainer, model, data = prepare(method, tmp_path, network=category_network)
    [from_file] = trainer.test(model, data, ckpt_path=folder / "last.ckpt", verbose=False)
    assert in_process == from_file


@pytest.mark.parametrize("method", each(m for m in METHODS if issubclass(m, Pretraining)))
def test_a_pretraining_refuses_categories(method: type[ImageClassifier], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="learns from images alone: pre-train its inner network"):
        run(method, tmp_path, network=category_network)


SMALL = [
    "--data=Digits", "--data.image_size=8", "--data.labeled_batch_size=6", "--data.unlabeled_ratio=2",
    "--data.steps_per_epoch=3", "--data.eval_batch_size=7", "--trainer.max_epochs=2", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=2",
    "--model=FixMatch", "--model.network=tailmatch.lightning_modules.networks.CifarResNet",
    "--model.network.depth=8",
]  # fmt: skip


def test_the_command_line_on_two_processes_and_then_on_one(tmp_path: Path) -> None:
    devices = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    remedy = ["--config=configs/callbacks/darp.yaml", "--trainer.callbacks.warmup_epochs=1"]
    script = Path(sys.executable).with_name("tailmatch")
    fit = [script, "fit", *SMALL, *devices, *remedy, f"--run_dir={tmp_path}/run"]
    result = subprocess.run(fit, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert result.returncode == 0, result.stderr
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["global_step"] == 6
    state = checkpoint["callbacks"]["DARP"]
    assert len(state["predictions"]) > 1000 and "refined" not in state
    one = ["--trainer.devices=1", "--trainer.strategy=auto", "--trainer.max_epochs=3"]
    tailmatch("fit", f"--run_dir={tmp_path}/run", "--ckpt_path=last", *one)
    assert torch.load(file, weights_only=True)["global_step"] == 9


def test_weights_for_other_classes_are_refused() -> None:
    model = Supervised(num_classes=3, network=partial(CifarResNet, depth=8))
    model.class_names = ["ant", "bee", "cow"]
    model.on_load_checkpoint({"class_names": ["ant", "bee", "cow"]})
    with pytest.raises(ValueError, match=r"only there \['dog'\], only here \['bee'\]"):
        model.on_load_checkpoint({"class_names": ["ant", "cow", "dog"]})
