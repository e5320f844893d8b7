"""What every method must do: fit, resume exactly, test. A method joins by being listed in `contract.py`."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from tailmatch.lightning_modules import ImageClassifier, Supervised
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.networks import CifarResNet
from tests.contract import (
    EPOCHS,
    METHODS,
    NO_REMEDY,
    STEPS_PER_EPOCH,
    Kill,
    Killed,
    assert_same_training,
    at_epoch_ends,
    callbacks_of,
    category_network,
    differs,
    last,
    remedies,
    run,
    saved,
)
from tests.typed import call as tailmatch

methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


@methods
@pytest.mark.parametrize(
    ("killed_after", "saving"),
    [
        pytest.param(7, lambda p: last(p, every_n_train_steps=3), id="saved in mid-epoch"),
        pytest.param(7, at_epoch_ends, id="saved at the end of an epoch"),
        pytest.param(10, lambda p: last(p, every_n_train_steps=8), id="saved on the last step of an epoch"),
    ],
)
def test_a_killed_and_resumed_run_ends_with_the_same_bits(
    method: type[ImageClassifier], killed_after: int, saving: Any, tmp_path: Path
) -> None:
    run(method, tmp_path, at_epoch_ends(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(method, tmp_path, saving(tmp_path / "killed"), Kill(killed_after))
    assert 0 < saved(tmp_path / "killed")["global_step"] <= killed_after
    checkpoint = tmp_path / "killed" / "last.ckpt"
    trainer = run(method, tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=checkpoint)
    assert trainer.global_step == STEPS_PER_EPOCH * EPOCHS
    assert_same_training(saved(tmp_path / "whole"), saved(tmp_path / "resumed"))


@pytest.mark.parametrize(
    ("method", "remedy"),
    [(method, remedy) for method in METHODS for remedy in remedies(method) if remedy != NO_REMEDY],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
@pytest.mark.parametrize("steps", [6, 7])
def test_a_remedy_changes_the_training_and_resumes_exactly(
    method: type[ImageClassifier], remedy: str, steps: int, tmp_path: Path
) -> None:
    run(method, tmp_path, at_epoch_ends(tmp_path / "plain"))
    run(method, tmp_path, *callbacks_of(remedy), at_epoch_ends(tmp_path / "whole"))
    saving = last(tmp_path / "killed", every_n_train_steps=steps)
    with pytest.raises(Killed):
        run(method, tmp_path, *callbacks_of(remedy), saving, Kill(steps + 1))
    checkpoint = tmp_path / "killed" / "last.ckpt"
    run(method, tmp_path, *callbacks_of(remedy), at_epoch_ends(tmp_path / "resumed"), ckpt=checkpoint)

    whole = saved(tmp_path / "whole")
    assert_same_training(whole, saved(tmp_path / "resumed"), remedy)
    assert differs(saved(tmp_path / "plain")["state_dict"], whole["state_dict"])


@methods
def test_averaged_weights_are_what_is_tested(method: type[ImageClassifier], tmp_path: Path) -> None:
    trainer = run(method, tmp_path, at_epoch_ends(tmp_path))
    in_process = trainer.test(trainer.lightning_module, trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
    from_file = trainer.test(
        trainer.lightning_module, trainer.datamodule, ckpt_path=str(tmp_path / "last.ckpt"), verbose=False  # type: ignore[attr-defined]
    )  # fmt: skip
    assert in_process == from_file and in_process[0]["test/loss"] > 0


class SeenCategories(Callback):
    """Notes what share of the levels is known, in each pass through a `CategoryNetwork`."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def setup(self, trainer: Trainer, pl_module: ImageClassifier, stage: str) -> None:  # type: ignore[override]
        embeddings = pl_module.network.get_submodule("category_embeddings")
        embeddings.register_forward_pre_hook(self.note)

    def note(self, embeddings: Any, args: tuple[Tensor]) -> None:
        self.shares.append(1 - float(args[0][:, embeddings.translation[:, 0]].mean()))


@pytest.mark.parametrize("method", [m for m in METHODS if not issubclass(m, Pretraining)], ids=lambda m: m.__name__)
def test_every_method_learns_from_categories_and_resumes_exactly(method: type[ImageClassifier], tmp_path: Path) -> None:
    fit = partial(run, method, network=category_network)
    seen = SeenCategories()
    trainer = fit(tmp_path, at_epoch_ends(tmp_path / "whole"), seen)
    assert len(seen.shares) >= EPOCHS * (STEPS_PER_EPOCH + 1) and min(seen.shares) > 0.3  # 0.72 without chance
    with pytest.raises(Killed):
        fit(tmp_path, last(tmp_path / "killed", every_n_train_steps=3), Kill(7))
    fit(tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=tmp_path / "killed" / "last.ckpt")
    whole = saved(tmp_path / "whole")
    assert_same_training(whole, saved(tmp_path / "resumed"))
    assert [level["name"] for level in whole["categories"]] == ["shade", "side"]

    model, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    in_process = trainer.test(model, data, verbose=False)
    from_file = trainer.test(model, data, ckpt_path=str(tmp_path / "whole" / "last.ckpt"), verbose=False)
    assert in_process == from_file


@pytest.mark.parametrize("method", [m for m in METHODS if issubclass(m, Pretraining)], ids=lambda m: m.__name__)
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


def test_the_command_line_on_two_processes(tmp_path: Path) -> None:
    devices = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    remedy = ["--config=configs/callbacks/darp.yaml", "--trainer.callbacks.warmup_epochs=1"]
    fit = tailmatch("fit", *SMALL, *devices, *remedy, f"--run_dir={tmp_path}/run")
    assert fit.returncode == 0, fit.stderr
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    state = checkpoint["callbacks"]["DARP"]
    assert len(state["predictions"]) == len(state["refined"]) > 1000
    one = ["--trainer.devices=1", "--trainer.strategy=auto", "--trainer.max_epochs=3"]
    more = tailmatch("fit", f"--run_dir={tmp_path}/run", "--ckpt_path=last", *one)
    assert more.returncode == 0, more.stderr

    results = []
    for count in (["--trainer.devices=1", "--trainer.strategy=auto"], devices):
        test = tailmatch("test", f"--run_dir={tmp_path}/run", "--ckpt_path=last", *count)
        assert test.returncode == 0, test.stderr
        results.append(json.loads((tmp_path / "run" / "test_metrics.json").read_text()))
    for name, value in results[0]["metrics"].items():
        assert results[1]["metrics"][name] == pytest.approx(value, rel=1e-5), name


def test_weights_for_other_classes_are_refused() -> None:
    model = Supervised(num_classes=3, network=partial(CifarResNet, depth=8))
    model.class_names = ["ant", "bee", "cow"]
    model.on_load_checkpoint({"class_names": ["ant", "bee", "cow"]})
    with pytest.raises(ValueError, match=r"only there \['dog'\], only here \['bee'\]"):
        model.on_load_checkpoint({"class_names": ["ant", "cow", "dog"]})
