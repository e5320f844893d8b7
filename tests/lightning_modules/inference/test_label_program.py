"""The program that labels elsewhere: which models have one, and what is said of those that have not."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.lightning_modules.inference.arrow_labels import WorkerModel
from tailmatch.lightning_modules.inference.export import export
from tailmatch.lightning_modules.inference.label_program import label_program
from tailmatch.lightning_modules.networks import CifarResNet
from tests.trained_files import NAMES, shaken, trained_file


def checkpoint(folder: Path, trainer: dict[str, Any] | None = None, **more: Any) -> str:
    path = trained_file(folder / "a.ckpt", shaken(CifarResNet(3, depth=8)), {"depth": 8}, **more)
    if trainer is not None:
        content = torch.load(path, weights_only=True)
        content["config"] = yaml.safe_dump(yaml.safe_load(content["config"]) | {"trainer": trainer})
        torch.save(content, path)
    return path


def test_a_checkpoint_and_its_export_give_the_same_program(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    export(path, tmp_path / "a.pt2")
    made, read = label_program(path), label_program(str(tmp_path / "a.pt2"), trust=True)
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    for program in (made, read):
        assert (program.class_names, program.image_size, program.levels, program.notes) == (NAMES, (8, 8), [], ())
        assert torch.equal(
            WorkerModel.load(program.content).probs(images, None), WorkerModel.load(made.content).probs(images, None)
        )


def test_a_program_is_code_and_needs_trust(tmp_path: Path) -> None:
    export(checkpoint(tmp_path), tmp_path / "a.pt2")
    with pytest.raises(SettingsError, match="a.pt2 is a program.*--trust_checkpoint true"):
        label_program(str(tmp_path / "a.pt2"))
    (tmp_path / "b.pt2").write_bytes(b"text")
    with pytest.raises(SettingsError, match="b.pt2.*no program of torch.export"):
        label_program(str(tmp_path / "b.pt2"), trust=True)
    with pytest.raises(MissingFileError, match="there is no model .*c.pt2"):
        label_program(str(tmp_path / "c.pt2"), trust=True)


def test_the_size_is_that_of_the_model_or_given(tmp_path: Path) -> None:
    assert label_program(checkpoint(tmp_path), 8).image_size == (8, 8)
    with pytest.raises(SettingsError, match="image_size is 16, and .*a.ckpt is for 8 x 8 pixels: leave it out"):
        label_program(checkpoint(tmp_path), 16)
    without = checkpoint(tmp_path, size=None)
    assert label_program(without, 16).image_size == (16, 16)
    with pytest.raises(SettingsError, match="does not say the size of its images: give --image_size"):
        label_program(without)
    with pytest.raises(SettingsError, match="image_size is 0"):
        label_program(without, 0)


def test_predictions_that_a_callback_changes_are_refused(tmp_path: Path) -> None:
    trainer = {"callbacks": [{"class_path": "tailmatch.callbacks.LogitAdjustment", "init_args": {}}]}
    with pytest.raises(SettingsError, match="LogitAdjustment, which changes its predictions.*tailmatch predict"):
        label_program(checkpoint(tmp_path, trainer))
    trainer = {"callbacks": [{"class_path": "tailmatch.callbacks.DARP"}]}  # of the training alone
    assert label_program(checkpoint(tmp_path, trainer)).class_names == NAMES


@pytest.mark.parametrize(("precision", "said"), [("bf16-mixed", True), ("32-true", False), (32, False), (None, False)])
def test_another_precision_is_said(precision: object, said: bool, tmp_path: Path) -> None:
    notes = label_program(checkpoint(tmp_path, {"precision": precision})).notes
    assert [f"precision {precision}" in note for note in notes] == [True] * said


def test_a_pre_training_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, method="tailmatch.lightning_modules.RotationPretraining")
    with pytest.raises(SettingsError, match="RotationPretraining"):
        label_program(path)
