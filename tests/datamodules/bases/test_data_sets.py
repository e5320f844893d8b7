"""Data sets: what they give, and what they say when something is wrong."""

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from tailmatch.datamodules import CIFAR10, DARPCounts, Digits, ImageFolder, InMemory, LabeledFraction, ListedCounts
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule, PredictSet
from tailmatch.datamodules.images import ImageRows


def save(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (20, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, color in (("cat", (250, 0, 0)), ("dog", (0, 250, 0))):
        for number in range(6):
            save(tmp_path / "train" / name / f"{number}.png", color)
        save(tmp_path / "test" / name / "0.png", color)
    for number in range(4):
        save(tmp_path / "unlabeled" / "deep" / f"{number}.jpg", (0, 0, 250))
    return tmp_path


def open_folder(folder: Path, **kwargs: object) -> ImageFolder:
    arguments = {"image_size": 8, "labeled_batch_size": 2, "unlabeled_ratio": 2, **kwargs}
    data = ImageFolder(str(folder), cache_dir=str(folder / "cache"), **arguments)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_digits_are_drawn_as_asked() -> None:
    data = Digits(class_counts=DARPCounts(30, 15, 80, 4), steps_per_epoch=3, labeled_batch_size=8)
    data.setup("fit")
    table = data.class_count_table()
    assert data.num_classes == 10 and not data.horizontal_flip
    assert table["labeled"] == data.class_counts == [30, 22, 16, 12, 9, 6, 4, 3, 2, 2]
    assert table["validation"] == [20] * 10 and table["test"] == [40] * 10
    loaders = data.train_dataloader()
    batch = next(iter(loaders["labeled"]))
    assert batch["image"].shape == (8, 3, 8, 8) and batch["image"].dtype == torch.uint8
    assert torch.equal(batch["target"], data.labeled.targets[batch["index"]])
    unlabeled = next(iter(loaders["unlabeled"]))
    assert unlabeled["image"].shape[0] == 56 and "target" not in unlabeled
    assert torch.equal(unlabeled["image"], data.unlabeled.images.pixels[data.unlabeled.rows[unlabeled["index"]]])


def trainer_of(*streams: str) -> Any:
    """A trainer of a method that reads these streams."""
    return SimpleNamespace(
        lightning_module=SimpleNamespace(streams=streams), global_rank=0, world_size=1,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(ready=0)))),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )  # fmt: skip


@pytest.mark.parametrize("include_labeled", [False, True])
def test_the_pool_has_every_training_image_once_and_no_label(include_labeled: bool) -> None:
    data = Digits(
        class_counts=ListedCounts([5] * 10, [6] * 10),
        include_labeled_in_unlabeled=include_labeled,
        labeled_batch_size=22,
        steps_per_epoch=5,
    )
    data.trainer = trainer_of("pool")
    data.setup("fit")
    loaders = data.train_dataloader()
    assert list(loaders) == ["pool"]
    batches = list(loaders["pool"])
    assert all(batch.keys() == {"image", "index"} for batch in batches)
    rows = data.pool.rows[torch.cat([batch["index"] for batch in batches])]
    unlabeled = data.unlabeled.rows[50:] if include_labeled else data.unlabeled.rows
    assert sorted(rows.tolist()) == sorted(torch.cat([data.labeled.rows, unlabeled]).tolist())


def test_the_balanced_stream_has_labeled_images_of_all_classes_equally_often() -> None:
    data = Digits(class_counts=DARPCounts(30, 30, 30, 1), steps_per_epoch=40, labeled_batch_size=50)
    data.trainer = trainer_of("labeled", "balanced")
    data.setup("fit")
    loaders = data.train_dataloader()
    assert list(loaders) == ["labeled", "balanced"]
    batches = list(loaders["balanced"])
    target = torch.cat([batch["target"] for batch in batches])
    assert torch.equal(target, data.labeled.targets[torch.cat([batch["index"] for batch in batches])])
    shares = torch.bincount(target, minlength=10) / len(target)
    assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.03)  # of 2,000 draws: 4.5 standard deviations
    data.labeled_sampling = "balanced"
    first = next(iter(data.train_dataloader()["labeled"]))  # drawn by the same weights, and for itself
    assert not torch.equal(first["index"], batches[0]["index"])


def test_labeled_images_may_join_the_unlabeled_in_front() -> None:
    data = Digits(class_counts=ListedCounts([5] * 10, [6] * 10), include_labeled_in_unlabeled=True)
    data.setup("fit")
    assert len(data.unlabeled) == 110
    assert torch.equal(data.unlabeled.rows[:50], data.labeled.rows)


def test_workers_give_the_same_batches() -> None:
    def batches(num_workers: int) -> list[torch.Tensor]:
        data = Digits(steps_per_epoch=3, labeled_batch_size=8, num_workers=num_workers)
        data.setup("fit")
        return [batch["image"] for batch in data.train_dataloader()["labeled"]]

    assert all(torch.equal(a, b) for a, b in zip(batches(0), batches(1), strict=True))


def test_folder_gives_classes_splits_and_pool(folder: Path) -> None:
    data = open_folder(folder, class_counts=ListedCounts([2, 2]), val_holdout=1)
    assert data.class_names == ["cat", "dog"]
    assert data.class_count_table() == {
        "labeled": [2, 2], "unlabeled": [3, 3], "validation": [1, 1], "test": [1, 1],
    }  # fmt: skip
    assert len(data.unlabeled) == 10 and (data.unlabeled.targets[-4:] == -1).all()
    blue = data.unlabeled.images.pixels[data.unlabeled.rows[-1]].float().mean((1, 2))
    assert blue.tolist() == pytest.approx([0, 0, 250], abs=3)


def test_hidden_files_and_pipes_are_no_images(folder: Path) -> None:
    before = open_folder(folder).class_count_table()
    (folder / "train" / ".git").mkdir()
    (folder / "train" / ".DS_Store").write_bytes(b"x")
    [first, *_] = sorted(path for path in (folder / "train").iterdir() if not path.name.startswith("."))
    (first / "._1.png").write_bytes(b"what a Mac writes beside 1.png")
    (first / ".ipynb_checkpoints").mkdir()
    (first / ".ipynb_checkpoints" / "2.png").write_bytes(b"x")
    (first / "loop").symlink_to(folder / "train")
    assert open_folder(folder).class_count_table() == before
    os.mkfifo(first / "pipe.png")
    with pytest.raises(
        SettingsError, match=r"unreadable images \(1\): .*\n.*pipe.png \(a pipe or a device, not a file\)"
    ):
        open_folder(folder)
    with pytest.warns(UserWarning, match=r"unreadable images are left out \(1\)"):
        assert open_folder(folder, on_bad_image="skip").class_count_table() == before


def test_classes_that_are_none_are_refused() -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    for names, message in (
        (["a", "a"], "class_names has 'a' more than once"),
        ("ab", "class_names is 'ab'; it must be a list of names"),
        (["a"], r"the classes are \[\'a\'\]; a classifier needs two or more"),
    ):
        with pytest.raises(SettingsError, match=message):
            InMemory(images, [0, 0, 0, 0], class_names=names)


def test_folder_cache_is_used_again_and_renewed_on_change(folder: Path) -> None:
    def caches() -> set[str]:
        return {path.name for path in (folder / "cache").glob("*.uint8")}

    open_folder(folder)
    first = caches()
    assert len(first) == 2
    open_folder(folder)
    assert caches() == first
    save(folder / "train" / "cat" / "0.png", (10, 10, 10))
    data = open_folder(folder, class_counts=LabeledFraction(1.0))
    assert len(caches()) == 3
    assert data.labeled.images.pixels[0].unique().tolist() == [10]


def test_an_image_is_resized_at_its_shorter_side_and_cropped_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, 4:12] = 200  # the middle square
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "train" / name / "x.png")
    data = open_folder(tmp_path, class_counts=LabeledFraction(1.0), image_size=8)
    assert data.labeled.images.pixels[torch.arange(2)].unique().tolist() == [200]


def test_folder_names_what_is_wrong(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no class folders in .*nowhere/train"):
        ImageFolder(str(folder / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"; no/where is relative to the folder in which this runs, /"):
        ImageFolder("no/where")
    (folder / "train" / "empty").mkdir()
    with pytest.raises(ValueError, match="class folder .*train/empty has no images"):
        open_folder(folder)
    (folder / "train" / "empty").rmdir()
    save(folder / "test" / "cow" / "0.png", (0, 0, 0))
    with pytest.raises(ValueError, match=r"class folders \['cow'\], and train/ has \['cat', 'dog'\]"):
        open_folder(folder)


def test_unreadable_images_are_all_named_and_leave_no_cache(folder: Path) -> None:
    for name in ("bad1.jpg", "bad2.png"):
        (folder / "train" / "cat" / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"(?s)unreadable images \(2\).*bad1.jpg.*bad2.png"):
        open_folder(folder)
    assert {path.suffix for path in (folder / "cache").iterdir()} <= {".lock"}


def test_cifar10_reads_the_published_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / datasets.CIFAR10.base_folder
    base.mkdir()
    names = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
    for number, name in enumerate(names):
        data = np.full((20, 3072), number, dtype=np.uint8)
        data[:, :1024] = 200  # the red plane comes first
        record = {"data": data, "labels": [k % 10 for k in range(20)]}
        (base / name).write_bytes(pickle.dumps(record))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(k) for k in range(10)]}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    data = CIFAR10(str(tmp_path), class_counts=ListedCounts([3] * 10, [5] * 10), val_holdout=2)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *args: True)
    data.prepare_data()
    data.setup("fit")
    table = data.class_count_table()
    assert table == {"labeled": [3] * 10, "unlabeled": [5] * 10, "validation": [2] * 10, "test": [2] * 10}
    image = data.test.images.pixels[0]  # type: ignore[union-attr]
    assert image.shape == (3, 32, 32) and image[0].unique().tolist() == [200] and image[1].unique().tolist() == [5]


def test_cifar10_without_network_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", no_network)
    with pytest.raises(FileNotFoundError, match=f"put cifar-10-python.tar.gz from https.* into {tmp_path}"):
        CIFAR10(str(tmp_path)).prepare_data()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeled_batch_size": 0}, "labeled_batch_size is 0"),
        ({"unlabeled_ratio": 0}, "unlabeled_ratio is 0"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"val_holdout": 5, "validate_on_test": True}, "choose where validation images come from"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Digits(**arguments)


def test_validating_on_test_is_only_when_asked() -> None:
    data = Digits(validate_on_test=True)
    data.setup("fit")
    assert data.val is data.test
    assert len(data.labeled) + len(data.unlabeled) + len(data.test) == 1797  # type: ignore[arg-type]


def test_another_split_of_the_same_images_is_refused() -> None:
    def state(data: LabeledUnlabeledDataModule) -> dict[str, str]:
        data.setup("test")
        return data.state_dict()

    first, other = Digits(seed=1), Digits(seed=2)
    state(other)
    with pytest.raises(ValueError, match="another split of the data"):
        other.load_state_dict(state(first))
    first.load_state_dict(state(Digits(seed=1)))


def test_predicts_the_images_of_the_set_that_is_asked_for() -> None:
    def predicted(name: PredictSet) -> ImageRows:
        data = Digits(class_counts=LabeledFraction(0.5), predict_set=name, val_holdout=2, test_holdout=2)
        data.setup("predict")
        batches = list(data.predict_dataloader())
        assert torch.equal(torch.cat([batch["index"] for batch in batches]), torch.arange(len(data.predicted)))
        assert torch.equal(batches[0]["image"][:3], data.predicted.__getitems__([0, 1, 2])["image"])
        return data.predicted

    pool = predicted("pool")
    labeled, unlabeled = predicted("labeled"), predicted("unlabeled")
    assert torch.equal(torch.cat([labeled.rows, unlabeled.rows]), pool.rows)
    assert len(predicted("val")) == len(predicted("test")) == 20


def test_an_empty_set_to_predict_names_those_with_images() -> None:
    data = Digits(predict_set="test", val_holdout=2, test_holdout=0)
    data.setup("predict")
    with pytest.raises(ValueError, match="predict_set is test, and it has no images; .* unlabeled, labeled, pool, val"):
        data.predict_dataloader()
