"""`tailmatch init`: settings that run as they stand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torchvision.models import shufflenet_v2_x0_5

from tailmatch.cli import main
from tailmatch.command_line import plan as plans
from tailmatch.command_line import step_times
from tailmatch.command_line.plan import Choice, Source, image_size_for, networks_for, propose, with_frozen
from tailmatch.command_line.plan_text import text_of
from tailmatch.command_line.step_times import StepTimes
from tailmatch.datamodules.files.survey import Survey
from tests.datamodules.files.test_image_folder import save

FOLDER = Source("tailmatch.datamodules.ImageFolder", {"root": "photos"}, can_merge=False)
TABLE = Source("tailmatch.datamodules.ImageTable", {"table": "photos.csv"}, can_merge=True)
SURVEY = Survey(["a", "b\n# x: 1", "c"], {"train": [90, 30, 1]}, 0, 0, 0, 0)


def settings(source: Source, survey: Survey, device: str = "cpu") -> dict[str, Any]:
    """The settings in the proposed file."""
    plan = replace(propose(source, survey, (64, "why"), device), network=Choice("CifarResNet"))
    read: dict[str, Any] = yaml.safe_load(text_of(plan, "photos.yaml"))
    return read


@pytest.mark.parametrize(
    ("sides", "device", "size"),
    [([10, 20], "cpu", 32), ([100, 100, 900], "cpu", 96), ([30, 3000, 4000], "gpu", 224), ([40, 70, 90], "gpu", 64)],
)
def test_the_size_is_that_of_the_images_as_far_as_the_device_is_fast(sides: list[int], device: str, size: int) -> None:
    assert image_size_for(sides, device)[0] == size


def test_classes_that_cannot_be_measured_are_merged_in_a_table() -> None:
    survey = replace(SURVEY, class_names=["a", "b", "c", "d"], counts={"train": [90, 30, 1, 2]})
    assert settings(TABLE, survey)["data"]["init_args"]["min_class_count"] == 3
    assert "min_class_count" not in settings(FOLDER, survey)["data"]["init_args"]
    assert "min_class_count" not in settings(TABLE, SURVEY)["data"]["init_args"]  # a single one stays what it is
    tiny = replace(SURVEY, counts={"train": [1, 2, 1]})
    assert "min_class_count" not in settings(TABLE, tiny)["data"]["init_args"]  # else one class would be left


def test_commands_with_odd_names_can_be_pasted() -> None:
    plan = replace(propose(FOLDER, SURVEY, (64, "why"), "cpu"), network=Choice("CifarResNet"))
    lines = text_of(plan, "my photos.yaml").splitlines()
    assert lines[1].endswith("fit --config 'my photos.yaml'") and "--run_dir 'runs/my photos' --ckpt" in lines[2]


def test_what_the_data_lack_is_held_out() -> None:
    assert settings(FOLDER, SURVEY)["data"]["init_args"].items() >= {"val_holdout": 0.1, "test_holdout": 0.2}.items()
    own = settings(FOLDER, replace(SURVEY, counts={"train": [90, 30, 1], "val": [5, 2, 0]}))
    assert "val_holdout" not in own["data"]["init_args"] and own["data"]["init_args"]["test_holdout"] == 0.2


@pytest.mark.parametrize(
    ("counts", "unlabeled", "method"),
    [
        ([30, 30, 20], 0, "Supervised"),
        ([90, 30, 1], 0, "Supervised"),
        ([30, 30, 20], 50, "FixMatch"),
        ([90, 30, 1], 50, "ADELLO"),
    ],
)
def test_the_method_follows_the_data(counts: list[int], unlabeled: int, method: str) -> None:
    model = settings(FOLDER, replace(SURVEY, counts={"train": counts}, unlabeled=unlabeled))["model"]
    assert model["class_path"].endswith(f".{method}")
    assert ("loss" in model["init_args"]) == (method == "Supervised" and counts[2] == 1)


def test_with_a_frozen_network_rare_classes_are_found_by_logit_adjustment() -> None:
    plan = propose(FOLDER, replace(SURVEY, unlabeled=50), (64, "why"), "cpu")
    assert (plan.method.class_path, with_frozen(plan, 90).method.class_path) == ("ADELLO", "Supervised")
    read = yaml.safe_load(text_of(replace(with_frozen(plan, 90), network=Choice("EfficientNet")), "photos.yaml"))
    assert read["model"]["init_args"]["tune"]["init_args"] == {"blocks": 0} and "callbacks+" not in read["trainer"]


def test_a_name_of_a_class_ends_no_comment() -> None:
    assert "x" not in settings(FOLDER, SURVEY)
    assert settings(FOLDER, SURVEY, "gpu")["trainer"]["precision"] == "bf16-mixed"


def test_networks_without_weights_come_last() -> None:
    assert [network.arguments["pretrained"] for network in networks_for("cpu", 96, None, None)] == [True, False]
    assert [network.class_path for network in networks_for("cpu", 32, None, None)] == ["EfficientNet", "CifarResNet"]
    assert [network.arguments["weights"] for network in networks_for("gpu", 96, None, "w.pth")] == ["w.pth"]
    assert [network.arguments["name"] for network in networks_for("gpu", 96, "resnet10t", None)] == ["resnet10t"]


@pytest.mark.parametrize(
    ("times", "found"),
    [
        (StepTimes(step=0.5, validation=0.5), (10, 110)),
        (StepTimes(step=0.5, validation=4.0), (3, 96)),  # three validations are a fifth of the time
        (StepTimes(step=50.0, validation=90.0), (1, 1)),
        (StepTimes(step=0.1, validation=0.0), (10, 600)),
        (StepTimes(step=13.0, validation=1.0), (4, 4)),  # ten epochs of a step each would take twice the time
    ],
)
def test_steps_fill_the_time_beside_the_validations(times: StepTimes, found: tuple[int, int]) -> None:
    assert times.steps_in(60) == found


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of two classes, and weights that need no download."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "photos", "train/cat\x1b[31m", "train/dog", count=10)
    torchvision = Choice("TorchvisionNetwork", {"name": "shufflenet_v2_x0_5", "weights": "weights.pth"})
    torch.save(shufflenet_v2_x0_5().state_dict(), "weights.pth")
    monkeypatch.setattr(plans, "networks_for", lambda *_: [torchvision])
    return tmp_path / "photos"


def test_the_proposed_settings_have_trained_a_few_steps(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, timed = step_times.time_steps, list[StepTimes]()

    def scarce(words: Sequence[str]) -> StepTimes:
        """Run out of memory with many images in a step."""
        if yaml.safe_load(Path(words[1]).read_text())["data"]["init_args"]["labeled_batch_size"] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        timed.append(real(words))
        return timed[-1]

    monkeypatch.setattr(step_times, "time_steps", scarce)
    main(["init", str(photos), "--minutes", "0.1", "--cache_dir", "cache"])
    written = yaml.safe_load(Path("photos.yaml").read_text())
    assert written["data"]["init_args"]["labeled_batch_size"] == 5
    assert written["data"]["init_args"]["cache_dir"] == "cache"
    assert len(timed) == 2 and 0 < timed[1].step < 5 and 0 < timed[1].validation < 5
    assert written["model"]["init_args"]["tune"]["init_args"] == {"blocks": 0}  # of all of it, too few steps fit
    said = capsys.readouterr().out
    assert "20 labeled images of 2 classes" in said and r"(cat\x1b[31m)" in said  # which colors no terminal
    assert sorted(path.name for path in photos.parent.iterdir()) == ["cache", "photos", "photos.yaml", "weights.pth"]
    with pytest.raises(SystemExit, match=r"photos.yaml exists"):
        main(["init", str(photos)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo"], "there is no photo: give a folder of images, or a table"),
        (["photos", "--target_column", "a"], "--target_column is for a table, and photos is none"),
        (["photos", "--minutes", "0"], "minutes is 0"),
        (["photos", "--minutes", "1e300"], "minutes is 1e.300; it must be at most 40,320, four weeks"),
        (["photos", "--image_size", "0"], "image_size is 0"),
        (["moved.csv"], r"none of its images is there, such as .*a.png: give the folder of its paths with --root"),
        (["unnamed.csv"], r"--target_column; .* are k\\x1b \(2 values\)$"),
        (["photos", "--weights", "weight.pth"], "--weights is weight.pth, and there is no such file"),
    ],
)
def test_wrong_arguments_have_one_message(words: list[str], message: str, photos: Path) -> None:
    Path("moved.csv").write_text("image,label\na.png,x\nb.png,y\n")
    Path("unnamed.csv").write_text("image,k\x1b\na.png,x\nb.png,y\n")
    with pytest.raises(SystemExit, match=message):
        main(["init", *words])
    assert not list(photos.parent.glob("*.yaml*"))


def test_weights_of_another_network_are_refused_before_the_images_are_decoded(photos: Path) -> None:
    torch.save({"stem": torch.zeros(3)}, "weights.pth")
    said = "do not fit the network.*\n  the network is TorchvisionNetwork shufflenet_v2_x0_5; weights of another"
    with pytest.raises(SystemExit, match=said):
        main(["init", "photos", "--weights", "weights.pth", "--cache_dir", "cache"])
    assert not Path("cache").exists()
