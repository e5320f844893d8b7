"""Loader processes that are not forked, as on macOS and Windows: whatever reaches them can be sent to them."""

import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader

from tailmatch.datamodules import Digits, ImageFolder, ImageTable, InMemory, UnlabeledImages, UnlabeledTable
from tailmatch.datamodules.bases.image_data import ImageDataModule
from tailmatch.datamodules.images import ImageBlocks, ImageRows

NAMES = ["cat", "dog"]
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = ["image,target,color"]
    for number, pixels in enumerate(PIXELS):
        path = tmp_path / "train" / NAMES[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        rows.append(f"{path.relative_to(tmp_path)},{NAMES[number % 2]},{'red' if number > 3 else 'blue'}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    return tmp_path


MODULES: dict[str, Callable[[str, dict[str, Any]], ImageDataModule]] = {
    "ImageFolder": lambda root, files: ImageFolder(root, **files),
    "ImageFolder without a cache": lambda root, files: ImageFolder(root, **files, cache_budget_gb=0, num_workers=1),
    "ImageTable": lambda root, files: ImageTable(
        f"{root}/table.csv", category_columns=["color"], test_holdout=0, val_holdout=0, **files
    ),
    "UnlabeledImages": lambda root, files: UnlabeledImages(root, NAMES, **files),
    "UnlabeledTable": lambda root, files: UnlabeledTable(
        f"{root}/table.csv", class_names=NAMES, category_columns=["color"], **files
    ),
    "InMemory": lambda root, files: InMemory(PIXELS, [0, 1] * 4),
    "Digits": lambda root, files: Digits(),
}


def rows_of(data: ImageDataModule) -> ImageRows:
    data.prepare_data()
    data.setup("predict" if isinstance(data, UnlabeledImages) else "fit")
    return data.predicted


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.filterwarnings("ignore:no validation images")
def test_a_spawned_process_loads_the_batches_of_every_data_module(folder: Path) -> None:
    files = {"image_size": 4, "cache_dir": str(folder / "cache")}
    sets = [ImageBlocks(rows_of(make(str(folder), files)), 3) for make in MODULES.values()]
    blocks: ConcatDataset[Any] = ConcatDataset(sets)
    loader = DataLoader(blocks, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    for place, batch in enumerate(loader):
        assert same(batch, blocks[place])
    assert place == len(blocks) - 1


@pytest.mark.filterwarnings("ignore:no validation images")
def test_cached_images_are_sent_by_the_path_of_the_cache(folder: Path) -> None:
    rows = rows_of(ImageFolder(str(folder), image_size=64, cache_dir=str(folder / "cache")))
    sent = ForkingPickler.dumps(rows)
    assert len(sent) < 8 * 3 * 64 * 64 / 10
    again = pickle.loads(sent)
    assert same(again.__getitems__([0, 2]), rows.__getitems__([0, 2]))
