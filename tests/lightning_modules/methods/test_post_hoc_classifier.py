"""Computed classifiers: what a fit leaves is what was computed, from the right images, and nothing else changes."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch.nn import functional

from tailmatch.lightning_modules import PostHocClassifier
from tailmatch.lightning_modules.heads import NCM, ComputedHead, TauNorm
from tailmatch.lightning_modules.heads.ncm import class_means
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.contract import assert_same, at_epoch_ends, post_hoc, run, saved, source_checkpoint
from tests.lightning_modules.methods.test_classifier_retraining import backbone_bits

HEADS = pytest.mark.parametrize("head", [TauNorm(), NCM()], ids=lambda head: type(head).__name__)


def fit(checkpoint: str, head: ComputedHead, folder: Path, **more: Any) -> Trainer:
    return run(post_hoc(checkpoint, head), folder, at_epoch_ends(folder), **more)  # type: ignore[arg-type]


@HEADS
def test_a_fit_is_one_step_and_its_checkpoint_needs_no_other_file(head: ComputedHead, tmp_path: Path) -> None:
    file = source_checkpoint(tmp_path)
    source = torch.load(file, weights_only=True)["state_dict"]
    trainer = fit(file, head, tmp_path)
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert (trainer.global_step, trainer.current_epoch) == (1, 1)
    assert_same(backbone_bits(saved(tmp_path)["state_dict"]), backbone_bits(source), "backbone")
    [tested] = trainer.test(trainer.lightning_module, data, verbose=False)
    Path(file).unlink()
    again = run(post_hoc(file, head), tmp_path, ckpt=tmp_path / "last.ckpt")  # type: ignore[arg-type]  # a resume
    assert_same(
        dict(again.lightning_module.state_dict()), dict(trainer.lightning_module.state_dict()), "after a resume"
    )
    [from_file] = again.test(again.lightning_module, data, ckpt_path=str(tmp_path / "last.ckpt"), verbose=False)
    assert from_file == tested


def test_tau_is_the_best_of_what_validation_then_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = source_checkpoint(tmp_path)
    trainer = fit(file, TauNorm(), tmp_path / "all")
    found = re.search(r"tau ([\d.]+) of 21 .* accuracy ([\d.]+) on 20 validation", capsys.readouterr().out)
    assert found is not None
    validated = [
        fit(file, TauNorm(taus=[tau]), tmp_path / str(tau)).callback_metrics["val/balanced_accuracy"].item()
        for tau in (0.0, 0.7, 1.3, 2.0)
    ]
    best = trainer.callback_metrics["val/balanced_accuracy"].item()
    assert best == pytest.approx(float(found[2])) and best >= max(validated)
    source = torch.load(file, weights_only=True)["state_dict"]["network.head.weight"]
    weight = trainer.lightning_module.state_dict()["network.head.weight"]
    lengths = source.norm(dim=1, keepdim=True)
    torch.testing.assert_close(weight, source / lengths ** float(found[1]))
    assert trainer.lightning_module.state_dict()["network.head.bias"].count_nonzero() == 0


def test_class_means_are_those_of_the_labeled_images_as_they_are(tmp_path: Path) -> None:
    trainer = fit(source_checkpoint(tmp_path), NCM(), tmp_path)
    data, method = trainer.datamodule, trainer.lightning_module  # type: ignore[attr-defined]
    assert isinstance(method, PostHocClassifier)
    with torch.no_grad():
        features = method.eval().network.features(to_float(data.labeled.images.pixels[data.labeled.rows]))
    directions = functional.normalize(features - features.mean(dim=0))
    means = torch.stack([directions[data.labeled.targets == k].mean(dim=0) for k in range(10)])
    torch.testing.assert_close(method.network.head.weight.data, functional.normalize(means))  # type: ignore[union-attr]
    torch.testing.assert_close(method.network.head.center, features.mean(dim=0))
    torch.testing.assert_close(
        method(to_float(data.test.images.pixels[data.test.rows])),
        functional.normalize(
            method.network.features(to_float(data.test.images.pixels[data.test.rows])) - features.mean(dim=0)
        )
        @ class_means(features - features.mean(dim=0), data.labeled.targets, 10).T,
    )


@HEADS
def test_a_second_fit_computes_nothing_anew(head: ComputedHead, tmp_path: Path) -> None:
    file = source_checkpoint(tmp_path)
    trainer = fit(file, head, tmp_path)
    Path(file).unlink()
    method: Any = trainer.lightning_module
    before = {name: value.clone() for name, value in method.state_dict().items()}
    more = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, use_distributed_sampler=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    more.fit(method, trainer.datamodule)  # type: ignore[attr-defined]
    assert_same(dict(method.state_dict()), before, "second fit")


def test_arguments_that_would_do_nothing_do_not_exist() -> None:
    with pytest.raises(TypeError, match="optimizer"):
        PostHocClassifier(10, "a.ckpt", NCM(), network=partial(CifarResNet, depth=8), optimizer=torch.optim.SGD)  # type: ignore[call-arg]


def test_a_run_without_a_data_module_is_refused(tmp_path: Path) -> None:
    method = PostHocClassifier(10, source_checkpoint(tmp_path), NCM(), network=partial(CifarResNet, depth=8))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    with pytest.raises(ValueError, match="PostHocClassifier .* needs the images of a data module"):
        trainer.fit(method, torch.utils.data.DataLoader([0]))
