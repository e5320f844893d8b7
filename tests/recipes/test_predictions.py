"""Images without labels, predicted with a checkpoint and nothing else of its run, as a user types it."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning import Trainer

from tailmatch import cli
from tailmatch.command_line.predict import facts_of_data
from tailmatch.datamodules import Digits, UnlabeledImages, UnlabeledTable
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.inference.trained_network import load, trained_network
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.typed import tailmatch

pytestmark = pytest.mark.xdist_group("predictions")

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.enable_model_summary=false"]
SHORT = ["--trainer.max_epochs=2", "--data.steps_per_epoch=8", "--trainer.log_every_n_steps=4"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the demo, cut short, elsewhere and without its run: FixMatch with DARP and its reports."""
    folder = tmp_path_factory.mktemp("moved")
    run = ["--trainer.callbacks.warmup_epochs=0", f"--run_dir={folder / 'run'}", "--overwrite=true"]
    tailmatch("fit", "--config=configs/demo.yaml", *QUIET, *SHORT, *run)
    moved = folder / "mine" / "best.ckpt"
    moved.parent.mkdir()
    (folder / "run" / "checkpoints" / "best.ckpt").rename(moved)
    return moved


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve test images of the demo's data as files."""
    data = Digits()
    data.setup("test")
    folder = tmp_path / "photos"
    folder.mkdir()
    assert data.test is not None
    for number in range(12):
        pixels = data.test.images.pixels[data.test.rows[number : number + 1]][0]
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def expected_labels(checkpoint: Path, photos: Path) -> list[str]:
    """What the checkpoint's network says of the pixels, apart from the command."""
    source = read_checkpoint(str(checkpoint))
    opened = [np.array(Image.open(path).convert("RGB")) for path in sorted(photos.iterdir())]
    pixels = torch.from_numpy(np.stack(opened)).permute(0, 3, 1, 2)
    assert source.class_names is not None
    return [source.class_names[k] for k in trained_network(source, "")(to_float(pixels)).argmax(dim=1).tolist()]


def labels(table: Path) -> list[str]:
    return [row["label"] for row in csv.DictReader(table.open())]


def test_a_checkpoint_and_a_folder_are_enough(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(tmp_path)
    predict = ["predict", f"--ckpt_path={checkpoint}", "--data=UnlabeledImages", f"--data.root={photos}", *QUIET]
    cli.main([*predict, "--output=out/photos.csv"])
    assert f"12 predictions: {Path('out/photos.csv')}\n" in capsys.readouterr().out
    assert labels(tmp_path / "out" / "photos.csv") == expected_labels(checkpoint, photos)
    assert sorted({*before, "out/photos.csv"}) == files(tmp_path)  # no logs, no cache, no reports
    cli.main(predict)
    assert files(checkpoint.parent) == ["best.ckpt", "predictions.csv"]
    with pytest.raises(SystemExit, match=r"predictions.csv exists: .*--overwrite true; for init and predict, --output"):
        cli.main(predict)  # though the fit was told to overwrite
    cli.main([*predict, "--overwrite=true"])
    (checkpoint.parent / "predictions.csv").unlink()


def test_python_predicts_what_the_command_predicts(checkpoint: Path, photos: Path) -> None:
    data = ["--data=UnlabeledImages", f"--data.root={photos}"]
    cli.main(["predict", f"--ckpt_path={checkpoint}", *data, "--output=photos.csv", *QUIET])
    rows = list(csv.DictReader(Path("photos.csv").open()))
    for model in (load(f"file://{checkpoint}"), FixMatch.load_from_checkpoint(checkpoint)):
        found = model.predict(photos)
        assert found.names == [row["label"] for row in rows] and type(model) is FixMatch
        assert found.confidence.tolist() == pytest.approx([float(row["confidence"]) for row in rows], abs=1e-6)
    assert model.threshold == 0.95 and not model.unknown


def test_a_file_of_a_plain_trainer_is_as_good(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(checkpoint)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.test(model, Digits(), verbose=False)
    trainer.save_checkpoint(tmp_path / "python.ckpt")
    assert "config" not in torch.load(tmp_path / "python.ckpt", weights_only=True)
    data = ["--data=UnlabeledImages", f"--data.root={photos}", "--output=photos.csv"]
    cli.main(["predict", "--ckpt_path=python.ckpt", *data, *QUIET])
    assert labels(tmp_path / "photos.csv") == expected_labels(checkpoint, photos)
    with pytest.raises(SystemExit):  # such a file does not say its data
        cli.main(["predict", "--ckpt_path=python.ckpt"])
    assert "required: --data\n  To predict a folder of images: --data UnlabeledImages" in capsys.readouterr().err
    content = torch.load(tmp_path / "python.ckpt", weights_only=True)
    content["method"]["unknown"] = {"network": "a module of mine"}
    torch.save(content, tmp_path / "python.ckpt")
    with pytest.raises(SystemExit, match=r"how to make its network \(a module of mine.*use it in Python"):
        cli.main(["predict", "--ckpt_path=python.ckpt", *data, *QUIET])


def test_an_ensemble_and_a_table(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "list.tsv").write_text("image\n" + "".join(f"{k:02}.png\n" for k in (7, 3, 5)))
    table = ["--data=UnlabeledTable", f"--data.table={photos / 'list.tsv'}", "--output=three.csv", *QUIET]
    cli.main(["predict", "--model=Ensemble", f"--model.checkpoints=[{checkpoint}]", f"--run_dir={tmp_path}", *table])
    (photos / "list.tsv").unlink()
    every = expected_labels(checkpoint, photos)
    assert labels(tmp_path / "three.csv") == [every[7], every[3], every[5]]


def test_images_without_labels_become_pseudo_labels_where_the_output_says_so(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    data = ["--data=UnlabeledImages", f"--data.root={photos}"]
    cli.main(["predict", f"--ckpt_path={checkpoint}", *data, "--output=photos.npz", *QUIET])
    written = read_pseudo_labels(tmp_path / "photos.npz")
    names = sorted(path.name for path in photos.glob("*.png"))
    assert written.key.tolist() == names and written.size is not None
    assert written.size.tolist() == [(photos / name).stat().st_size for name in names]
    assert [written.origin.class_names[label] for label in written.label] == expected_labels(checkpoint, photos)


def test_by_url_and_as_a_submission(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    writer = [
        "--trainer.callbacks+=PredictionWriter", "--trainer.callbacks.columns=[id, label]",
        "--trainer.callbacks.header=false", "--trainer.callbacks.output=submission.tsv",
    ]  # fmt: skip
    data = ["--data=UnlabeledImages", f"--data.root={photos}", "--data.image_size=8"]
    cli.main(["predict", f"--ckpt_path=file://{checkpoint}", *data, *writer, *QUIET])
    rows = [f"{k:02}\t{label}" for k, label in enumerate(expected_labels(checkpoint, photos))]
    assert (tmp_path / "submission.tsv").read_text().splitlines() == rows
    cli.main(["predict", f"--ckpt_path=file://{checkpoint}", *data, *QUIET])
    assert "runs/fixmatch-unlabeledimages/predictions.csv" in files(tmp_path)  # a URL has no run folder


def test_images_with_labels_become_a_table_where_the_output_says_so(checkpoint: Path, tmp_path: Path) -> None:
    cli.main(["predict", f"--ckpt_path={checkpoint}", "--data.predict_set=test", "--output=test.csv", *QUIET])
    data = Digits()
    data.setup("test")
    assert data.test is not None and len(labels(tmp_path / "test.csv")) == len(data.test)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["test"], "test needs labels, and UnlabeledImages has none: it is for predict alone"),
        (["predict", "--output=a.xls"], "a.xls; its name must end in"),
        (["predict", "--data.class_names=[a, b]"], "trained on other classes: only there"),
        (["predict", "--weights_only=false"], "weights_only is false, and files with code in them are never read"),
    ],
)
def test_what_is_refused(args: list[str], message: str, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    data = ["--data=UnlabeledImages", f"--data.root={photos}", f"--run_dir={tmp_path}"]
    with pytest.raises(SystemExit, match=f"tailmatch: error: .*{message}"):
        cli.main([args[0], f"--ckpt_path={checkpoint}", *data, *args[1:], *QUIET])
    assert files(tmp_path) == before


def test_a_checkpoint_without_class_names(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["class_names"]
    torch.save(content, tmp_path / "nameless.ckpt")
    data = ["--data=UnlabeledImages", f"--data.root={photos}"]
    predict = ["predict", f"--ckpt_path={tmp_path / 'nameless.ckpt'}", *data, *QUIET]
    with pytest.raises(SystemExit, match="class_names is null: give it"):
        cli.main(predict)
    cli.main([*predict, f"--data.class_names={[f'd{k}' for k in range(10)]}", "--output=a.csv"])
    assert labels(tmp_path / "a.csv") == [f"d{name}" for name in expected_labels(checkpoint, photos)]


def test_a_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"config": Path("x")}, tmp_path / "a.ckpt")
    with pytest.raises(SystemExit, match="error: .*a.ckpt' cannot be read as a state dict: it holds pathlib"):
        cli.main(["predict", f"--ckpt_path={tmp_path / 'a.ckpt'}"])


def test_whether_images_may_be_mirrored_is_taken_from_the_checkpoint(checkpoint: Path) -> None:
    source = read_checkpoint(str(checkpoint))
    assert facts_of_data(source, UnlabeledImages) == {
        "class_names": [str(k) for k in range(10)], "image_size": 8, "horizontal_flip": False
    }  # fmt: skip
    for data, flip in (
        ({"class_path": "tailmatch.datamodules.ImageFolder", "init_args": {"horizontal_flip": False}}, False),
        ({"class_path": "tailmatch.datamodules.ImageFolder", "init_args": {}}, True),
        ({"class_path": "elsewhere.Data"}, None),
    ):
        source.settings["data"] = yaml.safe_load(yaml.safe_dump(data))
        assert facts_of_data(source, UnlabeledImages)["horizontal_flip"] is flip


def test_a_table_gives_the_categories_that_the_checkpoint_knows(checkpoint: Path) -> None:
    source = read_checkpoint(str(checkpoint))
    assert facts_of_data(source, UnlabeledTable)["levels"] == []
    levels = [{"name": "color", "values": ["red"], "unknown_trained": True}]
    assert facts_of_data(replace(source, categories=levels), UnlabeledTable)["levels"] == ["color"]
