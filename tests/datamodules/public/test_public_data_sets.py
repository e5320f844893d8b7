"""Public data sets, read from tiny files in the published formats."""

import gzip
import pickle
import struct
import urllib.request
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits
from torchvision import datasets

from tailmatch.datamodules import (
    CIFAR10,
    CIFAR100,
    STL10,
    SVHN,
    DARPCounts,
    Digits,
    FashionMNIST,
    LabeledUnlabeledDataModule,
    ListedCounts,
)
from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.public import svhn

RANDOM = np.random.default_rng(0)


def random_images(count: int, *shape: int) -> Any:
    return RANDOM.integers(256, size=(count, *shape), dtype=np.uint8)


def sources(data: LabeledUnlabeledDataModule) -> LabeledUnlabeledDataModule:
    data.prepare_data()
    data.setup("fit")
    sent: ImageRows = pickle.loads(ForkingPickler.dumps(data.labeled))  # as to a loader process that is not forked
    assert torch.equal(sent[0]["image"], data.labeled[0]["image"])
    return data


def test_cifar100_reads_the_published_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "cifar-100-python"
    base.mkdir()
    pixels = {"train": random_images(300, 3, 32, 32), "test": random_images(200, 3, 32, 32)}
    for name, images in pixels.items():
        fine = [k % 100 for k in range(len(images))]
        record = {"data": images.reshape(-1, 3072), "fine_labels": fine, "coarse_labels": [k // 5 for k in fine]}
        (base / name).write_bytes(pickle.dumps(record))
    (base / "meta").write_bytes(pickle.dumps({"fine_label_names": ["?"] * 100}))
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", None]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", None]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": None})
    data = sources(CIFAR100(str(tmp_path), class_counts=ListedCounts([1] * 100, [1] * 100), val_holdout=1))
    assert data.class_count_table() == {
        "labeled": [1] * 100, "unlabeled": [1] * 100, "validation": [1] * 100, "test": [2] * 100,
    }  # fmt: skip
    assert np.array_equal(data.labeled.images.pixels, pixels["train"])
    assert data.test is not None and np.array_equal(data.test.images.pixels, pixels["test"])
    assert data.class_names == sorted(set(data.class_names))  # as published: in alphabetical order
    assert (len(data.class_names), data.class_names[0], data.class_names[99]) == (100, "apple", "worm")


@pytest.fixture
def house_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """`X uint8 [32, 32, 3, N]`, `y uint8 [N, 1]`, the digit 0 as 10."""
    pixels, published = {}, {}
    for split, count in (("train", 60), ("test", 20), ("extra", 40)):
        pixels[split] = random_images(count, 3, 32, 32)
        digits = (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]
        file = f"{split}_32x32.mat"
        savemat(tmp_path / file, {"X": pixels[split].transpose(2, 3, 1, 0), "y": digits}, do_compression=True)
        published[split] = [f"http://nowhere/{file}", file, None]
    monkeypatch.setattr(datasets.SVHN, "split_list", published)
    return tmp_path, pixels


def test_svhn_reads_the_published_format(house_numbers: tuple[Path, dict[str, Any]]) -> None:
    root, pixels = house_numbers
    counts = ListedCounts([2] * 10, [4, 3, 2, 1, 0, 0, 0, 0, 0, 1])
    data = sources(SVHN(str(root), class_counts=counts, val_holdout=1))
    assert data.class_names == ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"] and not data.horizontal_flip
    assert data.class_count_table() == {
        "labeled": [2] * 10, "unlabeled": counts.unlabeled, "validation": [1] * 10, "test": [2] * 10,
    }  # fmt: skip
    pool = data.labeled.images
    assert pool.pixels.is_contiguous()
    assert np.array_equal(pool.pixels, np.concatenate([pixels["train"], pixels["extra"]]))
    assert pool.targets[:11].tolist() == [*range(10), 0]  # the files count 1, 2, ..., 9, 10 (the digit 0)
    assert (data.labeled.rows < 60).all() and (data.unlabeled.rows >= 60).all()


def test_svhn_without_extra_draws_unlabeled_from_train_and_needs_no_extra_file(
    house_numbers: tuple[Path, dict[str, Any]],
) -> None:
    root, _ = house_numbers
    counts = ListedCounts([2] * 10, [1] * 10)
    with_extra = sources(SVHN(str(root), class_counts=counts, val_holdout=1))
    (root / "extra_32x32.mat").unlink()
    data = sources(SVHN(str(root), extra=False, class_counts=counts, val_holdout=1))
    assert torch.equal(data.labeled.rows, with_extra.labeled.rows)
    assert len(data.unlabeled.images.pixels) == 60 and not set(data.unlabeled.rows.tolist()) & set(
        data.labeled.rows.tolist()
    )


def test_svhn_needs_scipy_before_it_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svhn, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"need scipy: pip install 'tailmatch\[svhn\]'"):
        SVHN(str(tmp_path)).prepare_data()


def test_digits_are_those_of_scikit_learn() -> None:
    theirs = load_digits()
    pool = Digits().load().train
    assert np.array_equal(pool.pixels[:, 1], (theirs.images * (255 / 16)).round())
    assert np.array_equal(pool.targets, theirs.target)


def test_svhn_counts_are_the_authors() -> None:
    labeled, unlabeled = SVHN().class_counts_rule.counts([4000] * 10)
    assert labeled == [1000, 599, 359, 215, 129, 77, 46, 27, 16, 10]  # 1000 * 0.01 ** (k / 9)
    assert unlabeled is not None and 5 * sum(labeled) - 10 < sum(unlabeled) <= 5 * sum(labeled)


@pytest.fixture
def stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """`*_X.bin`: uint8 planes in column-major order; `*_y.bin`: classes from 1 on."""
    base = tmp_path / "stl10_binary"
    base.mkdir()
    pixels = {"train": random_images(30, 3, 96, 96), "unlabeled": random_images(7, 3, 96, 96)}
    pixels["test"] = random_images(10, 3, 96, 96)
    for split, images in pixels.items():
        images.transpose(0, 1, 3, 2).tofile(base / f"{split}_X.bin")
        if split != "unlabeled":
            (np.arange(len(images), dtype=np.uint8) % 10 + 1).tofile(base / f"{split}_y.bin")
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(datasets.STL10, name, [[file, None] for file, _ in getattr(datasets.STL10, name)])
    return tmp_path, pixels


def test_stl10_reads_the_published_format(stl10: tuple[Path, dict[str, Any]]) -> None:
    root, pixels = stl10
    data = sources(STL10(str(root), class_counts=DARPCounts(2, 2, unlabeled_max=0), val_holdout=1))
    pool = data.unlabeled.images
    assert pool.pixels.is_contiguous()
    assert np.array_equal(pool.pixels, np.concatenate([pixels["train"], pixels["unlabeled"]]))
    assert pool.targets.tolist() == [*range(10)] * 3 + [-1] * 7
    assert data.unlabeled.rows.tolist() == list(range(30, 37))
    assert data.class_counts == [2] + [1] * 9
    assert data.test is not None and np.array_equal(data.test.images.pixels, pixels["test"])
    assert data.test.targets.tolist() == [*range(10)]


def test_stl10_is_resized_as_pillow_does(stl10: tuple[Path, dict[str, Any]]) -> None:
    root, pixels = stl10
    data = sources(STL10(str(root), image_size=32, class_counts=ListedCounts([1] * 10), val_holdout=1))
    expected = [
        np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((32, 32), Image.Resampling.BILINEAR))
        for image in np.concatenate([pixels["train"], pixels["unlabeled"]])
    ]
    assert np.array_equal(data.labeled.images.pixels.permute(0, 2, 3, 1), np.stack(expected))
    with pytest.raises(ValueError, match="image_size is 0"):
        STL10(image_size=0)


def idx(array: Any) -> bytes:
    """LeCun's format: two zeros, 8 for unsigned bytes, the number of axes, the axes, the bytes; packed."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def test_fashion_mnist_reads_the_published_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = {"train": random_images(50, 28, 28), "t10k": random_images(20, 28, 28)}
    for name, images in pixels.items():
        (raw / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (raw / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(len(images), dtype=np.uint8) % 10))
    resources = [(file, None) for file, _ in datasets.FashionMNIST.resources]
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    data = sources(FashionMNIST(str(tmp_path), class_counts=ListedCounts([2] * 10), val_holdout=1))
    assert data.class_count_table() == {
        "labeled": [2] * 10, "unlabeled": [2] * 10, "validation": [1] * 10, "test": [2] * 10,
    }  # fmt: skip
    for channel in range(3):
        assert np.array_equal(data.labeled.images.pixels[:, channel], pixels["train"])
    assert data.class_names[9] == "Ankle boot" and data.labeled.images.targets[:10].tolist() == [*range(10)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (CIFAR100, "CIFAR-100 .*: put cifar-100-python.tar.gz from https.* into {}"),
        (SVHN, "SVHN .*: put train_32x32.mat, test_32x32.mat, extra_32x32.mat from http.* into {}"),
        (STL10, "STL-10 .*: put stl10_binary.tar.gz from http.* into {}"),
        (FashionMNIST, "Fashion-MNIST .*train-images-idx3-ubyte.gz.* from http.* into {}/FashionMNIST/raw"),
    ],
)
def test_without_network_it_says_which_files_to_put_where(
    make: Callable[[str], LabeledUnlabeledDataModule], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(FileNotFoundError, match=message.format(tmp_path) + " and run again") as raised:
        make(str(tmp_path)).prepare_data()
    assert "no network" in str(raised.value) and "\n" not in str(raised.value)


def test_a_pickle_of_another_checksum_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of CIFAR are pickles, which can run any program; torchvision compares the published MD5 first."""

    def offline(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network")

    def unpickle(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a pickle is read")

    for reader, kind in ((datasets.CIFAR10, CIFAR10), (datasets.CIFAR100, CIFAR100)):
        folder = tmp_path / reader.base_folder
        folder.mkdir()
        for name in [*(name for name, _ in reader.train_list + reader.test_list), reader.meta["filename"]]:
            (folder / name).write_bytes(pickle.dumps({"data": b"another"}))
        monkeypatch.setattr(urllib.request, "urlopen", offline)
        monkeypatch.setattr("torchvision.datasets.cifar.pickle.load", unpickle)
        data = kind(str(tmp_path))
        with pytest.raises(MissingFileError, match="is missing or incomplete"):
            data.prepare_data()
        with pytest.raises(RuntimeError, match="not found or corrupted"):
            data.load()
